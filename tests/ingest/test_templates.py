"""What is known of exporters' templates: learned, redefined, confirmed, bounded."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from ingest.decoders import Fault, Oddity, Unit
from ingest.decoders.layout import Field, Layout, Template
from ingest.decoders.templates import AMBIGUOUS, UNKNOWN, Learned
from ingest.templates import FEW_KEYS, FIELD_BYTES, LOOK_AT, TemplateBounds, TemplateStore
from tests.builders import (
    UNIX_SECONDS,
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    mapped,
    number,
    template,
    v9_datagram,
    v9_templates,
)
from tests.ingest.collector import EXPORTER as SENDER
from tests.ingest.collector import RECEIVED_NS, Collector, faults, rows

EXPORTER, OTHER = mapped("192.0.2.1"), mapped("192.0.2.2")


def key(template_id: int, exporter: bytes = EXPORTER, version: int = 9, domain: int = 0) -> bytes:
    """By what a template is kept."""
    return exporter + version.to_bytes(2) + domain.to_bytes(4) + template_id.to_bytes(2)


def described(template_id: int, *lengths: int, version: int = 9) -> Template:
    """A template whose fields are of these lengths."""
    layout = Layout(version, tuple(Field(0, 1, length) for length in lengths), options=False, scopes=0)
    return Template(template_id, layout, 4 + 4 * len(lengths))


def learn(store: TemplateStore, template_id: int, *lengths: int, exporter: bytes = EXPORTER) -> object:
    """Teach a store a template of one exporter."""
    return store.learn(key(template_id, exporter), described(template_id, *lengths))


def test_what_was_learned_is_found() -> None:
    """A template has a layout by its key; a key that is not known has none."""
    store = TemplateStore()
    outcome = learn(store, 256, 4, 2)
    assert isinstance(outcome, Learned)
    assert not outcome.redefined
    (number_, unknown) = store.numbers([key(256), key(257)])
    assert unknown == UNKNOWN
    assert store.layout(number_) == described(256, 4, 2).layout
    assert store.candidates(key(256)) == (number_,)
    assert store.candidates(key(257)) == ()
    assert len(store) == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(257), id="template id"),
        pytest.param(key(256, exporter=OTHER), id="exporter"),
        pytest.param(key(256, version=10), id="version"),
        pytest.param(key(256, domain=1), id="domain"),
    ],
)
def test_templates_are_kept_by_exporter_version_domain_and_id(other: bytes) -> None:
    """What one of them has learned the other does not know."""
    store = TemplateStore()
    learn(store, 256, 4)
    assert store.numbers([other]) == [UNKNOWN]


def test_what_only_repeats_is_no_change() -> None:
    """A refreshed template teaches nothing."""
    store = TemplateStore()
    learn(store, 256, 4)
    assert learn(store, 256, 4) is None
    assert len(store) == 1


def test_exporters_that_send_the_same_layout_share_it() -> None:
    """A thousand exporters of one model have one layout, and it goes when the last of them sends another."""
    store = TemplateStore()
    exporters = [mapped(f"198.51.{index // 250}.{1 + index % 250}") for index in range(1000)]
    for index, exporter in enumerate(exporters):
        learn(store, 256 + index, 4, 2, exporter=exporter)
    assert (len(store), store.layouts) == (1000, 1)
    numbers = store.numbers([key(256 + index, exporter) for index, exporter in enumerate(exporters)])
    assert len(set(numbers)) == 1
    for index, exporter in enumerate(exporters):
        for _ in range(2):
            learn(store, 256 + index, 8, exporter=exporter)
    assert (len(store), store.layouts) == (1000, 1)


def test_a_redefinition_keeps_the_layout_before_it_until_it_comes_again() -> None:
    """One datagram alone may be forged: both layouts are known until a second one says the same."""
    store = TemplateStore()
    first = learn(store, 256, 4)
    again = learn(store, 256, 8)
    assert isinstance(first, Learned)
    assert isinstance(again, Learned)
    assert again.redefined
    assert store.numbers([key(256)]) == [AMBIGUOUS]
    assert store.candidates(key(256)) == (again.number, first.number)
    assert learn(store, 256, 8) is None
    assert store.numbers([key(256)]) == [again.number]
    assert store.candidates(key(256)) == (again.number,)


def test_going_back_is_a_redefinition_too() -> None:
    """A forged template is put right by the next true one, and the data in between can be read by either."""
    store = TemplateStore()
    first = learn(store, 256, 4)
    learn(store, 256, 8)
    back = learn(store, 256, 4)
    assert isinstance(first, Learned)
    assert isinstance(back, Learned)
    assert back.redefined
    assert store.candidates(key(256))[0] == first.number
    assert learn(store, 256, 4) is None
    assert store.candidates(key(256)) == (first.number,)


def test_numbers_keep_their_meaning_until_the_batch_is_over() -> None:
    """A layout that no template has any more is still there for the data that came before, and free after it."""
    store = TemplateStore()
    first = learn(store, 256, 4)
    assert isinstance(first, Learned)
    for lengths in ((8,), (2,), (2, 2)):
        learn(store, 256, *lengths)
    assert store.layout(first.number) == described(256, 4).layout
    store.plan(first.number, 0)
    store.free_unused()
    with pytest.raises(LookupError):
        store.layout(first.number)
    assert store.layouts == 2


def test_a_layout_that_comes_back_before_it_is_freed_stays() -> None:
    """What was given up and learned again in one batch keeps its number."""
    store = TemplateStore()
    first = learn(store, 256, 4)
    assert isinstance(first, Learned)
    for length in (8, 2, 4):
        learn(store, 256, length)
    store.free_unused()
    assert store.layout(first.number) == described(256, 4).layout
    assert store.candidates(key(256))[0] == first.number


def test_redefining_for_ever_keeps_nothing() -> None:
    """However often a template changes, two layouts are kept of it, and numbers are used again."""
    store = TemplateStore()
    for turn in range(5000):
        learn(store, 256, 1 + turn % 60_000, 2)
        if turn % 10 == 0:
            store.free_unused()
    store.free_unused()
    assert (len(store), store.layouts) == (1, 2)
    assert max(store.candidates(key(256))) < 20


def test_learning_again_elsewhere_gives_the_same() -> None:
    """What a store tells of itself teaches another one all that it knows, redefinitions and their order with it."""
    store = TemplateStore()
    for lengths in ((4,), (8,)):
        learn(store, 256, *lengths)
    learn(store, 300, 2)
    copy = TemplateStore()
    for item in store:
        copy.learn(*item)
    assert [copy.layout(number_) for number_ in copy.candidates(key(256))] == [
        store.layout(number_) for number_ in store.candidates(key(256))
    ]
    assert list(copy) == list(store)


# --- bounds


def test_an_exporter_has_so_many_templates_in_a_domain() -> None:
    """One more than 512 is refused and counted; other domains, other exporters and redefinitions are not touched."""
    collector = Collector()
    flood = [v9_datagram(v9_templates(*(template(256 + start + at, field(1, 4)) for at in range(60))))
             for start in range(0, 600, 60)]  # fmt: skip
    decoded = collector.feed(*flood)
    assert decoded.templates == 600
    assert len(collector.pipeline.templates) == 512
    assert faults(decoded) == {(Fault.TEMPLATE_LIMIT, Unit.SETS): 88}
    assert not faults(collector.feed(flood[0]))
    assert not faults(collector.feed(v9_datagram(v9_templates(template(256, field(1, 8))))))
    assert not faults(collector.feed(v9_datagram(v9_templates(template(5000, field(1, 4))), source_id=1)))
    assert not faults(collector.feed(v9_datagram(v9_templates(template(5000, field(1, 4)))), source=OTHER))
    assert faults(collector.feed(v9_datagram(v9_templates(template(5000, field(1, 4)))))) == {
        (Fault.TEMPLATE_LIMIT, Unit.SETS): 1
    }


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        pytest.param(2047, {}, id="8 KB"),
        pytest.param(2048, {(Fault.TEMPLATE_TOO_LARGE, Unit.SETS): 1}, id="four bytes more"),
        pytest.param(16_000, {(Fault.TEMPLATE_TOO_LARGE, Unit.SETS): 1}, id="a whole datagram"),
    ],
)
def test_a_template_has_so_many_bytes(fields: int, lost: dict[tuple[Fault, Unit], int]) -> None:
    """Up to 8 KB as it came over the wire; a larger one is refused, and the next one in its set is learned."""
    collector = Collector()
    large = template(256, *(field(1 + place % 400, 1) for place in range(fields)))
    decoded = collector.feed(ipfix_message(ipfix_templates(large, template(257, field(1, 4)))))
    assert faults(decoded) == lost
    assert len(collector.pipeline.templates) == 2 - len(lost)


def test_over_a_bound_for_all_the_oldest_goes() -> None:
    """Of all exporters' templates so many are kept, those that were heard of last, and what went is counted."""
    store = TemplateStore(TemplateBounds(templates=3))
    for template_id in (256, 257, 258):
        learn(store, template_id, 4)
    learn(store, 256, 4)
    learn(store, 259, 4)
    assert store.evicted == 1
    assert [number_ != UNKNOWN for number_ in store.numbers([key(number_) for number_ in range(256, 260)])] == [
        True,
        False,
        True,
        True,
    ]


def test_all_layouts_have_so_many_bytes() -> None:
    """The memory of all distinct layouts is bounded as well; templates that share one cost it once."""
    store = TemplateStore(TemplateBounds(total_bytes=6 * 3 * FIELD_BYTES))
    for template_id in range(256, 300):
        learn(store, template_id, 4, 4, 4)
    assert (len(store), store.layouts, store.evicted) == (44, 1, 0)
    for template_id in range(300, 305):
        learn(store, template_id, 4, 4, template_id)
    assert (len(store), store.layouts, store.evicted) == (49, 6, 0)
    learn(store, 305, 4, 4, 305)
    assert (len(store), store.layouts, store.evicted) == (6, 6, 44)
    assert isinstance(learn(store, 256, 4, 4, 300), Learned)
    assert store.layouts == 6


def test_memory_is_no_more_than_is_counted() -> None:
    """The bytes that the bound holds for are those that are used, with the plans of all layouts."""
    collector = Collector()
    payloads = [
        v9_datagram(
            v9_templates(template(256, *(field(1 + (which * 7 + place) % 30_000, 1) for place in range(1000)))),
            data_set(256, bytes(1000)),
            source_id=which,
        )
        for which in range(30)
    ]
    collector.feed(payloads.pop())
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for payload in payloads:
        collector.feed(payload)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(collector.pipeline.templates) == 30
    assert used <= 29 * 1000 * FIELD_BYTES


def test_an_exporter_has_so_many_templates_in_all_its_domains() -> None:
    """The number of a domain is whatever a datagram says: more of them are no way around the bound."""
    store = TemplateStore(TemplateBounds(per_domain=3, per_exporter=5))
    outcomes = [
        store.learn(key(256 + template_id, domain=domain), described(256 + template_id, 4))
        for domain in range(4)
        for template_id in range(3)
    ]
    assert outcomes.count(Fault.TEMPLATE_LIMIT) == 7
    assert len(store) == 5
    store.forget([key(256)])
    assert isinstance(learn(store, 300, 4), Learned)


def test_what_was_told_but_once_and_never_used_goes_first() -> None:
    """A flood of templates that nobody needs displaces itself, not those that data comes for or that come again."""
    store = TemplateStore(TemplateBounds(templates=32))
    for template_id in range(256, 266):
        learn(store, template_id, 4)
    store.numbers([key(template_id) for template_id in range(256, 261)])
    for template_id in range(261, 266):
        learn(store, template_id, 4)
    store.take_used()
    for number_ in range(1000):
        learn(store, 256, 4, exporter=mapped(f"10.0.{number_ >> 8}.{number_ & 255}"))
    assert len(store) == 32
    assert UNKNOWN not in store.numbers([key(template_id) for template_id in range(256, 266)])


def test_when_all_are_used_the_oldest_goes_all_the_same() -> None:
    """What is new gets its chance, however full the store is of what is old."""
    store = TemplateStore(TemplateBounds(templates=32))
    for template_id in range(256, 288):
        learn(store, template_id, 4)
        learn(store, template_id, 4)
    learn(store, 300, 4)
    assert store.numbers([key(256), key(257), key(300)])[0] == UNKNOWN
    assert UNKNOWN not in store.numbers([key(257), key(300)])


# --- what the supervisor is told


def test_which_templates_are_in_use_is_told_once() -> None:
    """Those that came again, and those that data came for; not those that nobody needs, and no unknown ones."""
    store = TemplateStore()
    for template_id in (256, 257, 258):
        learn(store, template_id, 4)
    assert store.take_used() == []
    learn(store, 256, 4)
    store.numbers([key(257), key(300)])
    assert sorted(store.take_used()) == [key(256), key(257)]
    assert store.take_used() == []


def test_use_is_noticed_in_large_batches_too_and_what_is_noticed_is_bounded() -> None:
    """Of large batches every so many-th is looked at; templates that do not exist fill no memory."""
    store = TemplateStore(TemplateBounds(templates=1000))
    learn(store, 256, 4)
    for turn in range(LOOK_AT):
        store.numbers([key(256 + turn % 50_000, domain=1 + turn) for turn in range(turn * 300, turn * 300 + 300)])
        store.numbers([key(256)] * FEW_KEYS)
    assert store.take_used() == [key(256)]
    for turn in range(100):
        store.numbers([key(256 + at, domain=turn) for at in range(200)])
    assert len(store._used) < 1200


def test_a_redefined_template_is_contested_until_it_is_settled() -> None:
    """Meanwhile each datagram that tells it is noted, with what it says of its place."""
    collector = Collector()
    first = collector.feed(v9_datagram(v9_templates(template(256, field(1, 4))), sequence=5, uptime_ms=1000))
    (word,) = first.words
    assert (word.key, word.template.layout, word.changed) == (
        key(256, SENDER),
        described(256, 4).layout,
        True,
    )
    assert (word.sequence, word.uptime_ms, word.received_ns) == (5, 1000, RECEIVED_NS)
    assert word.exported_ns == UNIX_SECONDS * 1_000_000_000
    assert collector.feed(v9_datagram(v9_templates(template(256, field(1, 4))))).words == []
    again = v9_datagram(v9_templates(template(256, field(1, 8))))
    told = [collector.feed(again, again).words, collector.feed(again).words]
    assert [[one.changed for one in words] for words in told] == [[True, False], [False]]
    collector.pipeline.templates.settle([key(256, SENDER), key(300)])
    assert collector.feed(again).words == []


def test_what_is_forgotten_is_unknown_and_may_come_again() -> None:
    """With all that was noted of it; what is not known is forgotten already."""
    store = TemplateStore()
    learn(store, 256, 4)
    learn(store, 256, 8)
    store.forget([key(256), key(300)])
    assert (store.numbers([key(256)]), len(store), store.contested(key(256))) == ([UNKNOWN], 0, False)
    store.free_unused()
    assert store.layouts == 0
    outcome = learn(store, 256, 8)
    assert isinstance(outcome, Learned)
    assert not outcome.redefined


def test_what_went_makes_room_in_its_domain() -> None:
    """A template that was given up no longer counts against its exporter's bound."""
    store = TemplateStore(TemplateBounds(per_domain=2, templates=3))
    for exporter in (EXPORTER, OTHER):
        for template_id in (256, 257):
            learn(store, template_id, 4, exporter=exporter)
    assert store.evicted == 1
    assert isinstance(learn(store, 256, 4), Learned)


def test_what_went_is_unknown() -> None:
    """Data of a template that was given up waits as if it had never come."""
    collector = Collector(templates=TemplateBounds(templates=1))
    collector.feed(v9_datagram(v9_templates(template(256, field(1, 4)))))
    collector.feed(v9_datagram(v9_templates(template(257, field(1, 4)))))
    decoded = collector.feed(v9_datagram(data_set(256, number(1, 4)), data_set(257, number(2, 4))))
    assert [row["bytes"] for row in rows(decoded)] == [2]
    assert collector.pipeline.parking.sets == 1


def test_templates_given_up_within_their_batch_do_no_harm() -> None:
    """A batch that brings more templates than may be kept gives what it can, and raises nothing."""
    collector = Collector(templates=TemplateBounds(templates=2))
    payloads = [
        v9_datagram(v9_templates(template(256 + at, field(1, 4))), data_set(256 + at, number(at, 4))) for at in range(9)
    ]
    decoded = collector.feed(*payloads)
    kept = [row["bytes"] for row in rows(decoded)]
    assert len(kept) + collector.pipeline.parking.sets == 9
    assert len(collector.pipeline.templates) == 2


def test_refusing_is_told_for_each_template_of_a_set() -> None:
    """Templates that are refused cost neither those before nor those after them."""
    collector = Collector()
    decoded = collector.feed(
        ipfix_message(
            ipfix_templates(
                template(256, field(1, 4)),
                template(257, field(8, 0)),
                template(258),
                template(259, field(1, 4)),
            ),
            data_set(256, number(1, 4)),
            data_set(259, number(2, 4)),
        )
    )
    assert [row["bytes"] for row in rows(decoded)] == [1, 2]
    assert faults(decoded) == {(Fault.EMPTY_TEMPLATE, Unit.SETS): 1}
    assert dict(decoded.oddities) == {Oddity.WITHDRAWAL_IGNORED: 1}
    assert decoded.templates == 2


def test_what_is_kept_does_not_grow_with_what_is_sent() -> None:
    """Redefining, flooding and refreshing for long leaves no more behind than the bounds say."""
    collector = Collector(templates=TemplateBounds(per_domain=8, templates=32))

    def flood(turn: int) -> None:
        for domain in range(8):
            collector.feed(
                v9_datagram(
                    v9_templates(
                        *(template(256 + at, *(field(1, 1 + (turn + at) % 50) for _ in range(20))) for at in range(12))
                    ),
                    source_id=domain + turn % 3,
                )
            )

    for turn in range(10):
        flood(turn)
    gc.collect()
    tracemalloc.start()
    flood(10)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for turn in range(11, 40):
        flood(turn)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(collector.pipeline.templates) == 32
    assert after - before < 200_000
