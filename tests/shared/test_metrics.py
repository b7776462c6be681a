import pickle
import threading

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.metrics import (
    METRIC,
    METRICS,
    OTHER,
    Book,
    ExporterLabels,
    HistogramState,
    Kind,
    Metric,
    Snapshot,
    exposition_text,
    merge,
    total,
    totals,
)

# What dashboards and alert rules depend on: name and labels, in the order of the interface's table.
CONTRACT = {
    "ingest_datagrams_received_total": ("listener", "protocol"),
    "ingest_bytes_received_total": ("listener", "protocol"),
    "ingest_socket_drops_total": ("listener",),
    "ingest_socket_buffer_bytes": ("listener",),
    "ingest_records_decoded_total": ("protocol",),
    "ingest_dropped_total": ("stage", "reason", "unit"),
    "ingest_sequence_lost_total": ("exporter",),
    "ingest_exporter_datagrams_total": ("exporter",),
    "ingest_exporter_records_total": ("exporter",),
    "ingest_exporter_limited_total": ("exporter",),
    "ingest_exporter_last_seen_timestamp_seconds": ("exporter",),
    "ingest_templates": (),
    "ingest_exporters": (),
    "ingest_parked_bytes": (),
    "ingest_spool_bytes": (),
    "ingest_spool_limit_bytes": (),
    "ingest_workers": (),
    "ingest_decode_seconds": (),
    "ingest_batch_records": (),
    "kafka_produced_messages_total": ("topic",),
    "kafka_produced_records_total": ("topic",),
    "kafka_produced_bytes_total": ("topic",),
    "kafka_produce_errors_total": ("topic", "reason"),
    "kafka_produce_seconds": ("topic",),
    "kafka_queue_messages": ("topic",),
    "kafka_queue_bytes": ("topic",),
    "forwarder_records_consumed_total": ("sink", "topic", "partition"),
    "forwarder_lag_messages": ("sink", "topic", "partition"),
    "forwarder_lag_seconds": ("sink", "topic", "partition"),
    "forwarder_retention_left_seconds": ("sink", "topic", "partition"),
    "forwarder_duplicates_total": ("sink", "kind"),
    "forwarder_records_delivered_total": ("sink",),
    "forwarder_batches_delivered_total": ("sink",),
    "forwarder_delivery_seconds": ("sink",),
    "forwarder_delivery_errors_total": ("sink", "reason"),
    "forwarder_retries_total": ("sink", "reason"),
    "forwarder_breaker_state": ("sink",),
    "forwarder_concurrency": ("sink",),
    "forwarder_queue_records": ("sink",),
    "forwarder_queue_bytes": ("sink",),
    "forwarder_queue_batches": ("sink",),
    "forwarder_sink_failed": ("sink",),
    "forwarder_partitions_stopped": ("sink",),
    "forwarder_batches_uncommittable": ("sink",),
    "forwarder_dead_letters_total": ("sink", "reason"),
    "forwarder_dropped_total": ("sink", "reason"),
    "end_to_end_seconds": ("sink",),
    "build_info": ("version", "python"),
}


def value_of(metric: Metric, book: Book, number: float) -> None:
    """Give a metric one series, with its label names for values."""
    labels: dict[str, str | int] = {label: f"a {label}" for label in metric.labels}
    if metric.kind is Kind.COUNTER:
        book.add(metric.name, number, **labels)
    elif metric.kind is Kind.GAUGE:
        book.set(metric.name, number, **labels)
    else:
        book.observe(metric.name, number, **labels)


def full_book(number: float) -> Book:
    """A book in which every metric has one series."""
    book = Book()
    for metric in METRICS:
        value_of(metric, book, number)
    return book


@pytest.mark.parametrize("name", CONTRACT)
def test_a_metric_of_the_contract_exists_with_its_labels(name: str) -> None:
    """Every name that others depend on is there, with exactly the labels it is promised with."""
    assert METRIC[name].labels == CONTRACT[name]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_well_formed(metric: Metric) -> None:
    """A metric has a help sentence, a name that says its kind, buckets if and only if it is a histogram."""
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert (metric.buckets is not None) == (metric.kind is Kind.HISTOGRAM)
    if metric.buckets is not None:
        assert list(metric.buckets) == sorted(set(metric.buckets))
    assert ("sink" in metric.labels) == (metric.name.startswith("forwarder_") or metric.name == "end_to_end_seconds")


def test_names_are_unique() -> None:
    """No metric is listed twice."""
    assert len(METRIC) == len(METRICS)


def test_the_exposition_is_what_prometheus_reads() -> None:
    """Prometheus' own parser finds every metric that has a value, with its prefix, kind, help, labels and value."""
    text = exposition_text(full_book(2).snapshot).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert len(families) == len(METRICS)
    for metric in METRICS:
        # The parser takes the suffix of a counter's family away.
        family = families["sluiceway_" + metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        labels = {label: f"a {label}" for label in metric.labels}
        samples = {sample.name: sample for sample in family.samples if "le" not in sample.labels}
        if metric.kind is Kind.HISTOGRAM:
            assert samples[f"sluiceway_{metric.name}_sum"].value == 2
            assert samples[f"sluiceway_{metric.name}_count"].value == 1
        else:
            assert samples["sluiceway_" + metric.name].value == 2
            assert samples["sluiceway_" + metric.name].labels == labels


def test_the_exposition_escapes_what_a_label_may_hold() -> None:
    """Quotes, backslashes and line ends in a label value come out of Prometheus' parser as they went in."""
    book = Book()
    book.add("ingest_exporter_records_total", exporter='a "b" \\c\nd')
    (family,) = text_string_to_metric_families(exposition_text(book.snapshot).decode())
    assert family.samples[0].labels == {"exporter": 'a "b" \\c\nd'}


def test_nothing_counted_is_an_empty_exposition() -> None:
    """A metric without a series is not exposed: a stage does not show the other's as zero."""
    assert exposition_text(Book().snapshot) == b""


def test_a_counter_can_be_shown_before_anything_happened() -> None:
    """Adding zero makes a series, so that the first increase is seen as one."""
    book = Book()
    book.add("kafka_produced_records_total", 0, topic="t")
    assert book.snapshot() == {"kafka_produced_records_total": {("t",): 0}}


def test_values_add_up_under_their_labels() -> None:
    """The order in which labels are given does not matter, and numbers are taken as their text."""
    book = Book()
    book.add("forwarder_records_consumed_total", 2, sink="lake", topic="t", partition=3)
    book.add("forwarder_records_consumed_total", 5, partition="3", topic="t", sink="lake")
    book.add("forwarder_records_consumed_total", 1, partition=4, topic="t", sink="lake")
    book.set("ingest_workers", 7)
    book.set("ingest_workers", 2)
    assert book.snapshot() == {
        "forwarder_records_consumed_total": {("lake", "t", "3"): 7, ("lake", "t", "4"): 1},
        "ingest_workers": {(): 2},
    }


WRONG_USES = {
    "an unknown name": lambda book: book.add("ingest_nothing_total"),
    "a missing label": lambda book: book.add("ingest_dropped_total", stage="decode", reason="truncated"),
    "a label too many": lambda book: book.set("ingest_workers", 1, pid=3),
    "another label": lambda book: book.add("ingest_records_decoded_total", proto="v5"),
    "a gauge that is added to": lambda book: book.add("ingest_workers"),
    "a counter that is set": lambda book: book.set("ingest_records_decoded_total", 1, protocol="v5"),
    "a counter that is observed": lambda book: book.observe("ingest_records_decoded_total", 1, protocol="v5"),
    "a counter that falls": lambda book: book.add("ingest_records_decoded_total", -1, protocol="v5"),
    "an unknown name to forget": lambda book: book.forget("ingest_nothing"),
    "a wrong label to forget": lambda book: book.forget("ingest_workers", sink="lake"),
}


@pytest.mark.parametrize("case", WRONG_USES)
def test_a_wrong_use_is_an_error(case: str) -> None:
    """What would count under the wrong name or labels raises, and counts nothing."""
    book = Book()
    with pytest.raises(ValueError, match=r"counter|gauge|histogram|labels|no metric"):
        WRONG_USES[case](book)
    assert book.snapshot() == {}


def test_a_histogram_puts_a_value_on_a_bound_below_it() -> None:
    """A value equal to an upper bound belongs to that bucket, one above the last to the infinite one."""
    metric = METRIC["ingest_batch_records"]
    bounds = metric.buckets or ()
    book = Book()
    for value in (*bounds, 10**9):
        book.observe(metric.name, value)
    state = book.snapshot()[metric.name][()]
    assert state == HistogramState((1,) * (len(bounds) + 1), sum(bounds) + 10**9)


def test_many_values_count_as_each_alone() -> None:
    """Observing an array is the same as observing its values, and an empty one changes no count."""
    values = np.array([0, 1, 1.5, 50_000, 50_001, 10**7])
    one_by_one, together = Book(), Book()
    for value in values:
        one_by_one.observe("ingest_batch_records", float(value))
    together.observe_many("ingest_batch_records", values[:4])
    together.observe_many("ingest_batch_records", values[4:])
    together.observe_many("ingest_batch_records", [])
    assert together.snapshot() == one_by_one.snapshot()


def test_what_is_forgotten_is_gone_and_may_come_back() -> None:
    """Forgetting removes the series with these labels only, and a later value begins anew."""
    book = Book()
    for partition in (0, 1):
        book.set("forwarder_lag_messages", 9, sink="lake", topic="t", partition=partition)
    book.observe("end_to_end_seconds", 1, sink="lake")
    book.forget("forwarder_lag_messages", partition=1)
    book.forget("end_to_end_seconds")
    assert book.snapshot() == {"forwarder_lag_messages": {("lake", "t", "0"): 9}, "end_to_end_seconds": {}}
    book.set("forwarder_lag_messages", 3, sink="lake", topic="t", partition=1)
    assert total(book.snapshot(), "forwarder_lag_messages", partition=1) == 3


def test_a_snapshot_crosses_a_process_boundary() -> None:
    """A snapshot is plain data: it pickles, and does not change when the book does."""
    book = full_book(1)
    snapshot = book.snapshot()
    copy: Snapshot = pickle.loads(pickle.dumps(snapshot))
    value_of(METRIC["ingest_decode_seconds"], book, 1)
    value_of(METRIC["ingest_templates"], book, 5)
    assert copy == snapshot != book.snapshot()


def test_snapshots_of_workers_become_one() -> None:
    """Counters and histograms add up over workers, and gauges as their metric says."""
    first, second = Book(), Book()
    for book, number in ((first, 3), (second, 4)):
        book.add("ingest_records_decoded_total", number, protocol="v9")
        book.set("ingest_parked_bytes", number)
        book.set("ingest_exporter_last_seen_timestamp_seconds", number, exporter="192.0.2.1")
        book.set("forwarder_retention_left_seconds", number, sink="lake", topic="t", partition=0)
        book.observe("ingest_decode_seconds", number)
    second.add("ingest_records_decoded_total", 1, protocol="v5")

    merged = merge([first.snapshot(), second.snapshot()])

    assert merged["ingest_records_decoded_total"] == {("v9",): 7, ("v5",): 1}
    assert merged["ingest_parked_bytes"] == {(): 7}
    assert merged["ingest_exporter_last_seen_timestamp_seconds"] == {("192.0.2.1",): 4}
    assert merged["forwarder_retention_left_seconds"] == {("lake", "t", "0"): 3}
    state = merged["ingest_decode_seconds"][()]
    assert isinstance(state, HistogramState)
    assert (state.count, state.sum) == (2, 7)
    assert first.snapshot()["ingest_parked_bytes"] == {(): 3}, "merging changed a snapshot"


def test_merging_nothing_is_nothing() -> None:
    """No snapshots make an empty one, and one makes itself."""
    snapshot = full_book(1).snapshot()
    assert merge([]) == {}
    assert merge([snapshot]) == snapshot


def test_totals_are_sums_over_matching_labels() -> None:
    """A total sums over the series that match, and totals group them by one label."""
    book = Book()
    book.add("ingest_dropped_total", 2, stage="decode", reason="truncated", unit="sets")
    book.add("ingest_dropped_total", 3, stage="park", reason="truncated", unit="sets")
    book.add("ingest_dropped_total", 5, stage="decode", reason="bad_length", unit="sets")
    book.add("ingest_dropped_total", 7, stage="decode", reason="unknown_version", unit="datagrams")
    book.observe_many("end_to_end_seconds", [1, 2], sink="lake")
    snapshot = book.snapshot()
    assert total(snapshot, "ingest_dropped_total") == 17
    assert total(snapshot, "ingest_dropped_total", unit="sets", stage="decode") == 7
    assert total(snapshot, "ingest_workers") == 0
    assert total(snapshot, "end_to_end_seconds") == 2
    assert totals(snapshot, "ingest_dropped_total", "reason", unit="sets") == {"truncated": 5, "bad_length": 5}
    with pytest.raises(ValueError, match="labels"):
        total(snapshot, "ingest_dropped_total", sink="lake")


def test_threads_lose_no_count() -> None:
    """Four threads that count in one book while it is read add up exactly."""
    book = Book()

    def count() -> None:
        for _ in range(2000):
            book.add("ingest_records_decoded_total", protocol="v5")
            book.observe("ingest_decode_seconds", 0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        book.snapshot()
    for thread in threads:
        thread.join()
    assert total(book.snapshot(), "ingest_records_decoded_total") == 8000
    assert total(book.snapshot(), "ingest_decode_seconds") == 8000


def test_exporters_over_the_cap_share_a_label() -> None:
    """The first exporters up to the cap keep their own label for good, and all others are counted as other."""
    labels = ExporterLabels(2)
    seen = [labels.label(exporter) for exporter in ("a", "b", "c", "a", "d", "b")]
    assert seen == ["a", "b", OTHER, "a", OTHER, "b"]
    assert ExporterLabels(0).label("a") == OTHER
