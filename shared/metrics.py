"""Every metric there is, how a process counts them, and how they become Prometheus text.

A process or thread counts in a `Book`; its `Snapshot` is plain data that can cross a process boundary; `merge` adds the
snapshots of all workers up; `Exposition` shows the result. Nothing here talks to a network.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

PREFIX = "sluiceway_"
OTHER = "other"
EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(StrEnum):
    """How the values that several workers have for one gauge become one value."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name without the prefix, what it means, and the names of its labels in order.

    `buckets` are the upper bounds of a histogram, ascending, without the infinite one; None for the other kinds.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] | None = None
    across: Across = Across.SUM


_CPU_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_NETWORK_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_DELAY_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
_BATCH_RECORDS = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 50000.0, 100000.0)

_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_PARTITION = ("sink", "topic", "partition")

# The order is that of the exposition. Names, labels and units are a contract with dashboards and alert rules.
METRICS: tuple[Metric, ...] = (
    # ingest: from the socket to the decoder
    Metric(
        "ingest_datagrams_received_total",
        _COUNTER,
        "Datagrams read from the sockets.",
        ("listener", "protocol"),
    ),
    Metric(
        "ingest_bytes_received_total",
        _COUNTER,
        "Bytes of UDP payload read from the sockets.",
        ("listener", "protocol"),
    ),
    Metric(
        "ingest_socket_drops_total",
        _COUNTER,
        "Datagrams that the kernel dropped because a receive buffer was full.",
        ("listener",),
    ),
    Metric(
        "ingest_socket_buffer_bytes",
        _GAUGE,
        "Receive buffer obtained from the kernel, all sockets of the listener together.",
        ("listener",),
    ),
    Metric("ingest_records_decoded_total", _COUNTER, "Flow records decoded.", ("protocol",)),
    Metric("ingest_options_records_total", _COUNTER, "Options records decoded: what devices tell of themselves."),
    Metric("ingest_counters_decoded_total", _COUNTER, "Counter samples of sFlow decoded."),
    Metric(
        "ingest_skipped_total",
        _COUNTER,
        "Structures of sFlow that were passed over by their length, since no column has room for what they tell.",
        ("kind",),
    ),
    Metric(
        "ingest_oddities_total",
        _COUNTER,
        "What exporters did against the rules and could be read all the same; nothing was lost for it.",
        ("reason",),
    ),
    Metric(
        "ingest_dropped_total",
        _COUNTER,
        "Everything that was dropped, by the stage that dropped it, why, and what is counted: "
        "datagrams, sets, records or counter samples.",
        ("stage", "reason", "unit"),
    ),
    # ingest: per exporter, up to a configured number of exporters
    Metric(
        "ingest_sequence_lost_total",
        _COUNTER,
        "What an exporter's sequence numbers say was lost before it reached us, in the unit of its protocol.",
        ("exporter",),
    ),
    Metric(
        "ingest_samples_lost_total",
        _COUNTER,
        "Samples of sFlow that are missing by the sequence numbers of their data sources: "
        "those in datagrams that were lost, and those that the agent numbered and did not send.",
        ("exporter", "kind"),
    ),
    Metric(
        "ingest_samples_agent_dropped_total",
        _COUNTER,
        "By how much an sFlow agent's own count of samples that it dropped rose while we heard of it.",
        ("exporter", "kind"),
    ),
    Metric(
        "ingest_exporter_reported_total",
        _COUNTER,
        "By how much the totals rose that an exporter reports of itself in options data, while we heard of them.",
        ("exporter", "statistic"),
    ),
    Metric("ingest_exporter_datagrams_total", _COUNTER, "Datagrams received from an exporter.", ("exporter",)),
    Metric("ingest_exporter_records_total", _COUNTER, "Flow records decoded from an exporter.", ("exporter",)),
    Metric(
        "ingest_exporter_limited_total",
        _COUNTER,
        "Datagrams of an exporter that were thinned out because it sent faster than it may.",
        ("exporter",),
    ),
    Metric(
        "ingest_exporter_last_seen_timestamp_seconds",
        _GAUGE,
        "When the last datagram of an exporter was received, in Unix time.",
        ("exporter",),
        across=Across.MAX,
    ),
    # ingest: what is held
    Metric("ingest_templates", _GAUGE, "Templates and options templates kept, in all workers together."),
    Metric("ingest_exporters", _GAUGE, "Exporters that are known."),
    Metric("ingest_data_sources", _GAUGE, "Data sources of sFlow agents that are known, by kind of their samples."),
    Metric("ingest_reported_totals", _GAUGE, "Totals that are known which exporters report of themselves."),
    Metric(
        "ingest_table_full_total",
        _COUNTER,
        "What came from somebody new for whom a table had no room: datagrams of exporters, samples of data sources, "
        "totals that exporters report. Records and counters are not affected, only what is counted by exporter. "
        "And templates that went to make room for others in a worker: what needs them waits until they come again.",
        ("table",),
    ),
    Metric("ingest_parked_bytes", _GAUGE, "Bytes of sets that wait for their template."),
    Metric("ingest_parked_sets", _GAUGE, "Sets that wait for their template."),
    Metric("ingest_sets_parked_total", _COUNTER, "Sets that came before their template and were kept in memory."),
    Metric("ingest_sets_unparked_total", _COUNTER, "Sets that were decoded from memory, when their template came."),
    Metric(
        "ingest_sets_in_flight",
        _GAUGE,
        "Sets in memory that wait for their template, and those on their way to `flows.undecoded`.",
    ),
    Metric(
        "ingest_undecoded_produced_total",
        _COUNTER,
        "Sets put into `flows.undecoded` by workers that had no room for them, or stopped.",
    ),
    Metric("ingest_undecoded_read_total", _COUNTER, "Sets read from `flows.undecoded`, each as often as it was read."),
    Metric("ingest_undecoded_decoded_total", _COUNTER, "Sets read from `flows.undecoded` and decoded."),
    Metric(
        "ingest_undecoded_appended_total",
        _COUNTER,
        "Sets read from `flows.undecoded` and appended to it again, since their template is still not known.",
    ),
    Metric(
        "ingest_undecoded_expired_total",
        _COUNTER,
        "Sets read from `flows.undecoded` that became dead letters, since their template was not known for too long.",
    ),
    Metric(
        "ingest_undecoded_messages",
        _GAUGE,
        "Messages in `flows.undecoded`, in the partitions of this instance, when it was read last.",
    ),
    Metric(
        "ingest_undecoded_lost_messages_total",
        _COUNTER,
        "Messages that Kafka removed from `flows.undecoded` before anybody read them again: no ingest ran for too long."
        " Where no offset of the group is known, all that were before the start of the log.",
    ),
    # ingest: what instances know together
    Metric(
        "ingest_state_entries",
        _GAUGE,
        "Entries of `flows.exporters` as this instance knows them: templates, and pages of tables of options data.",
        ("kind",),
    ),
    Metric("ingest_state_published_total", _COUNTER, "Entries published to `flows.exporters`.", ("kind",)),
    Metric("ingest_state_waiting_entries", _GAUGE, "Entries that wait to be published."),
    Metric(
        "ingest_state_contested_templates",
        _GAUGE,
        "Templates of which another layout was told that is not believed: a redefinition that was not told twice in"
        " the exporter's own sequence.",
    ),
    Metric(
        "ingest_state_limited_total",
        _COUNTER,
        "What met a bound: entries that had to wait for their exporter's rate or were not published since too many"
        " exporters are; templates and facts for which there was no room, and templates that went to make room.",
        ("reason",),
    ),
    Metric("ingest_state_followed_total", _COUNTER, "Messages read from `flows.exporters`, our own among them."),
    Metric("ingest_state_followed_bytes_total", _COUNTER, "Bytes of their keys and values."),
    Metric("ingest_state_skipped_total", _COUNTER, "Entries of `flows.exporters` that were not taken in.", ("reason",)),
    Metric("ingest_state_lag_messages", _GAUGE, "Messages in `flows.exporters` that were not read yet."),
    Metric("ingest_outbox_records", _GAUGE, "Records in the buffers per partition, not yet made into a message."),
    Metric(
        "ingest_records_in_flight",
        _GAUGE,
        "Records decoded that are neither acknowledged by Kafka nor dropped yet, those in the buffers included.",
    ),
    Metric(
        "ingest_counters_in_flight",
        _GAUGE,
        "Counter samples decoded that are neither acknowledged by Kafka nor dropped yet.",
    ),
    Metric("ingest_spool_bytes", _GAUGE, "Bytes in the spool on disk."),
    Metric("ingest_spool_limit_bytes", _GAUGE, "Bytes that the spool on disk may hold."),
    Metric("ingest_spool_messages", _GAUGE, "Messages in the spool that Kafka has not acknowledged.", ("topic",)),
    Metric("ingest_spool_records", _GAUGE, "Records, or counter samples, in these messages.", ("topic",)),
    Metric(
        "ingest_spool_active",
        _GAUGE,
        "Whether what comes goes to the spool, since Kafka does not take it or has not caught up: 1 or 0.",
        ("topic",),
        across=Across.MAX,
    ),
    Metric(
        "ingest_spool_written_records_total", _COUNTER, "Records, or counter samples, written to the spool.", ("topic",)
    ),
    Metric(
        "ingest_spool_drained_records_total",
        _COUNTER,
        "Records, or counter samples, of the spool that Kafka acknowledged, or refused for good.",
        ("topic",),
    ),
    Metric(
        "ingest_spool_found_records_total",
        _COUNTER,
        "Records, or counter samples, that were in the spool at a start, and that this instance did not know of.",
        ("topic",),
    ),
    Metric(
        "ingest_spool_errors_total",
        _COUNTER,
        "What the spool could not do, by why: messages that it could not take, files that were damaged.",
        ("reason",),
    ),
    Metric("ingest_workers", _GAUGE, "Worker processes that run."),
    Metric(
        "ingest_control_left_out_total",
        _COUNTER,
        "Messages of workers to their supervisor that were left out since too many waited: what they heard of exporters "
        "and samples, so that losses are not known exactly, and reports, which are repeated.",
    ),
    Metric("ingest_worker_restarts_total", _COUNTER, "Worker processes that died and were replaced."),
    Metric("ingest_decode_seconds", _HISTOGRAM, "Time to decode one batch of datagrams.", (), _CPU_SECONDS),
    Metric("ingest_batch_records", _HISTOGRAM, "Records in one decoded batch.", (), _BATCH_RECORDS),
    # both: Kafka
    Metric("kafka_produced_messages_total", _COUNTER, "Messages that Kafka acknowledged.", ("topic",)),
    Metric("kafka_produced_records_total", _COUNTER, "Records in messages that Kafka acknowledged.", ("topic",)),
    Metric(
        "kafka_produced_bytes_total",
        _COUNTER,
        "Bytes of message values that Kafka acknowledged, before compression.",
        ("topic",),
    ),
    Metric("kafka_produce_errors_total", _COUNTER, "Messages that could not be produced.", ("topic", "reason")),
    Metric(
        "kafka_produce_seconds",
        _HISTOGRAM,
        "Time from handing a message to the Kafka client to its acknowledgement.",
        ("topic",),
        _NETWORK_SECONDS,
    ),
    Metric("kafka_queue_messages", _GAUGE, "Messages in the Kafka client's queue, not yet acknowledged.", ("topic",)),
    Metric("kafka_queue_bytes", _GAUGE, "Bytes of those messages.", ("topic",)),
    # forwarder
    Metric("forwarder_records_consumed_total", _COUNTER, "Records read from Kafka.", _PARTITION),
    Metric(
        "forwarder_lag_messages",
        _GAUGE,
        "Messages in the partition that are not delivered yet.",
        _PARTITION,
    ),
    Metric(
        "forwarder_lag_seconds",
        _GAUGE,
        "Age of the oldest message in the partition that is not delivered yet.",
        _PARTITION,
        across=Across.MAX,
    ),
    Metric(
        "forwarder_retention_left_seconds",
        _GAUGE,
        "Time until the oldest undelivered message in the partition expires from Kafka.",
        _PARTITION,
        across=Across.MIN,
    ),
    Metric(
        "forwarder_duplicates_total",
        _COUNTER,
        "Records found to be duplicates: of the same record, or of a flow that counts by another observation.",
        ("sink", "kind"),
    ),
    Metric("forwarder_dedup_entries", _GAUGE, "Record ids and flows that dedup remembers.", ("sink",)),
    Metric("forwarder_dedup_bytes", _GAUGE, "Bytes of memory that these take.", ("sink",)),
    Metric(
        "forwarder_dedup_forgotten_total",
        _COUNTER,
        "Record ids that dedup gave up before their time, since there were too many.",
        ("sink",),
    ),
    Metric(
        "forwarder_dedup_unidentified_total",
        _COUNTER,
        "Records without an id, which dedup lets through.",
        ("sink",),
    ),
    Metric(
        "forwarder_dedup_undecided_total",
        _COUNTER,
        "Records of which dedup cannot tell whether another exporter has them: of interfaces without a class, sampled"
        " ones under leases, and flows for which there is no room.",
        ("sink",),
    ),
    Metric(
        "forwarder_dedup_read_again_total",
        _COUNTER,
        "Messages that were read again after an assignment, to know what was delivered before.",
        ("sink",),
    ),
    Metric("forwarder_aggregated_records_total", _COUNTER, "Records that were added up.", ("sink",)),
    Metric("forwarder_aggregated_rows_total", _COUNTER, "Rows that they were added up to.", ("sink",)),
    Metric(
        "forwarder_aggregated_without_rate_total",
        _COUNTER,
        "Records that count in estimates as if unsampled, since their sampling rate is not known.",
        ("sink",),
    ),
    Metric(
        "forwarder_aggregated_saturated_total",
        _COUNTER,
        "Sums that do not fit into 64 bits, and are delivered as the largest number that does.",
        ("sink",),
    ),
    Metric(
        "forwarder_sink_failed",
        _GAUGE,
        "1 when the sink has stopped for good, until what its log and `/readyz` say is mended; else 0.",
        ("sink",),
        across=Across.MAX,
    ),
    Metric(
        "forwarder_partitions_stopped",
        _GAUGE,
        "Partitions that stand still before a message that this program cannot understand.",
        ("sink",),
    ),
    Metric(
        "forwarder_batches_uncommittable",
        _GAUGE,
        "Batches that the sink has, and that cannot be committed before an earlier one which it has not.",
        ("sink",),
    ),
    Metric("forwarder_records_delivered_total", _COUNTER, "Records that the sink acknowledged.", ("sink",)),
    Metric("forwarder_batches_delivered_total", _COUNTER, "Batches that the sink acknowledged.", ("sink",)),
    Metric(
        "forwarder_records_returned_total",
        _COUNTER,
        "Records read but left in Kafka for whoever gets their partition next, at a rebalance or a stop.",
        ("sink",),
    ),
    Metric(
        "forwarder_records_in_flight",
        _GAUGE,
        "Records read from Kafka that are neither acknowledged by the sink, nor dropped, nor returned yet.",
        ("sink",),
    ),
    Metric(
        "forwarder_delivery_seconds",
        _HISTOGRAM,
        "Time that the sink took for one batch that it acknowledged, without retries.",
        ("sink",),
        _NETWORK_SECONDS,
    ),
    Metric("forwarder_delivery_errors_total", _COUNTER, "Deliveries that the sink failed.", ("sink", "reason")),
    Metric("forwarder_retries_total", _COUNTER, "Deliveries that were tried again.", ("sink", "reason")),
    Metric(
        "forwarder_breaker_state",
        _GAUGE,
        "The sink's circuit breaker: 0 closed, 1 half open, 2 open; always 0, since there is none yet.",
        ("sink",),
        across=Across.MAX,
    ),
    Metric("forwarder_concurrency", _GAUGE, "Batches that may be in flight to the sink at a time.", ("sink",)),
    Metric("forwarder_queue_records", _GAUGE, "Records in batches that wait for the sink.", ("sink",)),
    Metric("forwarder_queue_bytes", _GAUGE, "Bytes of batches that wait for the sink.", ("sink",)),
    Metric("forwarder_queue_batches", _GAUGE, "Batches that wait for the sink.", ("sink",)),
    Metric("forwarder_dead_letters_total", _COUNTER, "Records put into the dead letters.", ("sink", "reason")),
    Metric(
        "forwarder_dropped_total",
        _COUNTER,
        "Records that were dropped, by why; for the reason `expired`, messages, since nobody knows how many records they"
        " held.",
        ("sink", "reason"),
    ),
    Metric(
        "end_to_end_seconds",
        _HISTOGRAM,
        "Time from the reception of a record to its acknowledged delivery.",
        ("sink",),
        _DELAY_SECONDS,
    ),
    Metric(
        "build_info",
        _GAUGE,
        "Always 1; the labels say what is running.",
        ("version", "python"),
        across=Across.MAX,
    ),
)

METRIC: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in METRICS})


@dataclass(frozen=True, slots=True)
class HistogramState:
    """What a histogram has seen: `counts` per bucket (not cumulative; the last one is the infinite one) and the sum."""

    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def __add__(self, other: HistogramState) -> HistogramState:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return HistogramState(counts, self.sum + other.sum)


Labels: TypeAlias = tuple[str, ...]
Snapshot: TypeAlias = dict[str, dict[Labels, float | HistogramState]]
"""By metric, by label values in the order of the metric's labels. Plain data: it pickles."""


class Book:
    """What one process or thread counts.

    All methods may be called from any thread; none waits for longer than another takes to add a number or to copy the
    book. An unknown metric, wrong labels, or a method that does not fit the metric's kind raise `ValueError`.
    A series appears with its first value: `add(name, 0)` makes a counter visible before anything has happened.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, dict[Labels, float]] = {}
        self._cells: dict[str, dict[Labels, _Cell]] = {}
        # What callers pass, as they pass it, to the label values in order: each spelling is checked once.
        self._keys: dict[tuple[object, ...], Labels] = {}

    def add(self, name: str, value: float = 1, **labels: str | int) -> None:
        """Raise a counter by `value`, which is not negative."""
        if value < 0:
            raise ValueError(f"a counter only rises, but {name} was to change by {value}")
        with self._lock:
            key = self._key(_COUNTER, name, labels)
            numbers = self._numbers[name]
            numbers[key] = numbers.get(key, 0) + value

    def set(self, name: str, value: float, **labels: str | int) -> None:
        """Set a gauge."""
        with self._lock:
            key = self._key(_GAUGE, name, labels)
            self._numbers[name][key] = value

    def observe(self, name: str, value: float, **labels: str | int) -> None:
        """Put one value into a histogram."""
        with self._lock:
            cell = self._cell(name, labels)
            cell.counts[bisect_left(cell.buckets, value)] += 1
            cell.sum += value

    def observe_many(self, name: str, values: npt.ArrayLike, **labels: str | int) -> None:
        """Put an array of values into a histogram, in one vectorised step."""
        array = np.asarray(values, dtype=np.float64).ravel()
        with self._lock:
            cell = self._cell(name, labels)
            places = np.searchsorted(np.asarray(cell.buckets), array, side="left")
            counts = np.bincount(places, minlength=len(cell.counts)).tolist()
            cell.counts = [before + more for before, more in zip(cell.counts, counts, strict=True)]
            cell.sum += float(array.sum())

    def forget(self, name: str, **labels: str | int) -> None:
        """Remove the series of a metric that have these label values, such as the lag of a partition that moved on."""
        metric = _metric(name)
        wanted = _wanted(metric, labels)
        with self._lock:
            if metric.kind is _HISTOGRAM:
                self._cells[name] = {key: v for key, v in self._cells.get(name, {}).items() if not _fits(key, wanted)}
            else:
                self._numbers[name] = {
                    key: v for key, v in self._numbers.get(name, {}).items() if not _fits(key, wanted)
                }
            self._keys.clear()

    def snapshot(self) -> Snapshot:
        """Copy what has been counted so far."""
        with self._lock:
            copy: Snapshot = {}
            for name, numbers in self._numbers.items():
                copy[name] = dict(numbers)
            for name, cells in self._cells.items():
                copy[name] = {key: HistogramState(tuple(cell.counts), cell.sum) for key, cell in cells.items()}
            return copy

    def _key(self, kind: Kind, name: str, labels: dict[str, str | int]) -> Labels:
        call = (kind, name, *labels.items())
        key = self._keys.get(call)
        if key is None:
            key = self._keys[call] = _checked_key(kind, name, labels)
            if kind is _HISTOGRAM:
                self._cells.setdefault(name, {})
            else:
                self._numbers.setdefault(name, {})
        return key

    def _cell(self, name: str, labels: dict[str, str | int]) -> _Cell:
        key = self._key(_HISTOGRAM, name, labels)
        cells = self._cells[name]
        if key not in cells:
            cells[key] = _Cell(METRIC[name].buckets or ())
        return cells[key]


class _Cell:
    """A histogram in the making."""

    __slots__ = ("buckets", "counts", "sum")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0


class ExporterLabels:
    """Which exporters get a label of their own: the first `cap` that are seen; all others share `other`.

    There is one for an instance, in the supervisor, so that the cap holds for what is exposed. May be called from one
    thread at a time.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._own: set[str] = set()

    def label(self, exporter: str) -> str:
        """Say under which label value an exporter is counted."""
        if exporter in self._own:
            return exporter
        if len(self._own) >= self._cap:
            return OTHER
        self._own.add(exporter)
        return exporter


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Make one snapshot of several: counters and histograms add up, gauges as their metric says (most add up)."""
    merged: Snapshot = {}
    for snapshot in snapshots:
        for name, series in snapshot.items():
            combine = _COMBINE[METRIC[name].across]
            into = merged.setdefault(name, {})
            for key, value in series.items():
                before = into.get(key)
                if before is None:
                    into[key] = value
                elif isinstance(before, HistogramState) and isinstance(value, HistogramState):
                    into[key] = before + value
                elif not isinstance(before, HistogramState) and not isinstance(value, HistogramState):
                    into[key] = combine(before, value)
                else:
                    raise ValueError(f"{name} is a histogram in one snapshot and a number in another")
    return merged


def total(snapshot: Snapshot, name: str, **labels: str | int) -> float:
    """Sum a metric over all series that have these label values; of a histogram, the number of values observed."""
    wanted = _wanted(_metric(name), labels)
    return sum(_number(value) for key, value in snapshot.get(name, {}).items() if _fits(key, wanted))


def totals(snapshot: Snapshot, name: str, by: str, **labels: str | int) -> dict[str, float]:
    """Sum a metric for each value of the label `by`, over all series that have the other label values given."""
    metric = _metric(name)
    wanted = _wanted(metric, labels)
    place = next(iter(_wanted(metric, {by: ""})))
    sums: dict[str, float] = {}
    for key, value in snapshot.get(name, {}).items():
        if _fits(key, wanted):
            sums[key[place]] = sums.get(key[place], 0) + _number(value)
    return sums


class Exposition(Collector):
    """Shows snapshots to prometheus_client; `source` is called at every scrape, in the thread that scrapes."""

    def __init__(self, source: Callable[[], Snapshot]) -> None:
        self._source = source

    def describe(self) -> Iterator[Family]:
        """Say nothing ahead of a scrape, so that registering does not call the source."""
        yield from ()

    def collect(self) -> Iterator[Family]:
        """Yield a family for every metric that has a series."""
        snapshot = self._source()
        for metric in METRICS:
            series = snapshot.get(metric.name)
            if series:
                yield _family(metric, series)


def exposition_text(source: Callable[[], Snapshot]) -> bytes:
    """Write the text that Prometheus reads; some milliseconds for thousands of series, so not for an event loop."""
    registry = CollectorRegistry()
    registry.register(Exposition(source))
    return generate_latest(registry)


_COMBINE: Mapping[Across, Callable[[float, float], float]] = MappingProxyType(
    {Across.SUM: lambda a, b: a + b, Across.MAX: max, Across.MIN: min}
)


def _metric(name: str) -> Metric:
    metric = METRIC.get(name)
    if metric is None:
        raise ValueError(f"there is no metric {name}: it has to be in shared.metrics.METRICS")
    return metric


def _checked_key(kind: Kind, name: str, labels: Mapping[str, str | int]) -> Labels:
    metric = _metric(name)
    if metric.kind is not kind:
        raise ValueError(f"{name} is a {metric.kind}, not a {kind}")
    if labels.keys() != set(metric.labels):
        raise ValueError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
    return tuple(str(labels[label]) for label in metric.labels)


def _wanted(metric: Metric, labels: Mapping[str, str | int]) -> dict[int, str]:
    """Label values by their place in the key."""
    unknown = labels.keys() - set(metric.labels)
    if unknown:
        raise ValueError(f"{metric.name} has the labels {metric.labels}, and not {', '.join(sorted(unknown))}")
    return {metric.labels.index(label): str(value) for label, value in labels.items()}


def _fits(key: Labels, wanted: Mapping[int, str]) -> bool:
    return all(key[place] == value for place, value in wanted.items())


def _number(value: float | HistogramState) -> float:
    return value.count if isinstance(value, HistogramState) else value


def _family(metric: Metric, series: Mapping[Labels, float | HistogramState]) -> Family:
    name = PREFIX + metric.name
    if metric.kind is _HISTOGRAM:
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        bounds = [*(repr(bound) for bound in metric.buckets or ()), "+Inf"]
        for key, value in series.items():
            if isinstance(value, HistogramState):
                cumulative = accumulate(value.counts)
                histogram.add_metric(key, list(zip(bounds, cumulative, strict=True)), value.sum)
        return histogram
    family: CounterMetricFamily | GaugeMetricFamily
    family = (CounterMetricFamily if metric.kind is _COUNTER else GaugeMetricFamily)(
        name, metric.help, labels=metric.labels
    )
    for key, value in series.items():
        family.add_metric(key, _number(value))
    return family
