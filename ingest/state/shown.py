"""Templates and facts of options data, as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from ingest.decoders.enrich import OF_A_DOMAIN, Fact
from ingest.decoders.templates import DOMAIN_BYTES
from ingest.exporters import address_text
from ingest.state.templates import Shown
from ingest.templates import SOURCE_BYTES


def templates_shown(known: Iterable[Shown], exporter: str | None, limit: int) -> list[dict[str, object]]:
    """So many templates, of one exporter or of all; a field is [enterprise, element, length].

    ``origin`` is where this instance has it from: ``wire``, or ``topic`` when another instance heard it. ``holds`` is
    false for a layout that was told and is not believed yet.
    """
    wanted = (one for one in known if exporter in {None, address_text(one.key[:SOURCE_BYTES])})
    return [
        {
            "exporter": address_text(one.key[:SOURCE_BYTES]),
            "version": one.template.layout.version,
            "observation_domain_id": int.from_bytes(one.key[18:DOMAIN_BYTES]),
            "template_id": one.template.template_id,
            "options": one.template.layout.options,
            "scope_fields": one.template.layout.scopes,
            "fields": [list(field) for field in one.template.layout.fields],
            "origin": one.origin,
            "holds": one.holds,
        }
        for one in islice(wanted, limit)
    ]


def facts_shown(known: Iterable[tuple[Fact, str]], exporter: str | None, limit: int) -> list[dict[str, object]]:
    """So many facts of options data, of one exporter or of all; ``origin`` as for templates."""
    wanted = ((fact, origin) for fact, origin in known if exporter in {None, address_text(fact.source)})
    return [
        {
            "exporter": address_text(fact.source),
            "version": fact.version if fact.kind in OF_A_DOMAIN else None,
            "observation_domain_id": fact.domain if fact.kind in OF_A_DOMAIN else None,
            "kind": fact.kind.name.lower(),
            "about": fact.about,
            "value": fact.value,
            "origin": origin,
        }
        for fact, origin in islice(wanted, limit)
    ]
