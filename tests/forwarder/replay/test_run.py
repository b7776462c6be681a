from __future__ import annotations

import pytest

from forwarder.config import AggregateConfig, CutConfig, DedupConfig, ExactDedupConfig, FlowDedupConfig
from forwarder.course import Epoch, Noted
from forwarder.cut import Token
from forwarder.delivery import Delivery, Finished, Parcel, Policy
from forwarder.replay.plan import NO_END, Delivered, Leg, Span, plan
from forwarder.replay.run import CutsDifferError, Nowhere, Pace, Replay, progress
from forwarder.replay.selection import Selection
from forwarder.replay.tally import Tally
from forwarder.shape import Shape
from forwarder.sinks.base import Refused
from shared import codec
from shared.errors import SluicewayError
from shared.log import Throttle
from shared.metrics import Book
from tests.fakes import TOPIC_ID, FakeClock, FakeLetterbox, MemorySink
from tests.forwarder.records import flows, heartbeat, message, shape
from tests.forwarder.replay.test_same_batches import EVERYTHING, replayed
from tests.forwarder.replay.topic import Backend, Topic

CUT = CutConfig(interval_ms=1000, max_records=100)
DEDUP = DedupConfig(exact=ExactDedupConfig(window_seconds=4))


def topic() -> Topic:
    """A message every 500 ms, of two records: of `edge` and of `core`, the third time and then again a repeated one."""
    ours = Topic()
    for step in range(20):
        ids = [2 * step, 2 * step + 1] if step % 3 else [0, 1000 + step]
        batch = flows(ids, sampler_name=["edge", "core"], src_as=[7, 7])
        ours.append(0, 10_000 + 500 * step, bytes(codec.encode(batch)), codec.headers(2, "test"))
    return ours


def legs(ours: Topic, of: Shape, start: int = 0, end: int = NO_END, *, committed: int = 18) -> list[Leg]:
    """A plan of partition 0."""
    return plan(ours, {0: Delivered(committed, Noted((Epoch(0, of),)))}, {0: Span(start, end)})


def tally(ours: Replay) -> dict[str, int]:
    """What was counted, without what was not."""
    return {name: count for name, count in ours.tally.as_json().items() if count}


def test_what_was_read_is_accounted_for() -> None:
    """**ledger**: records are delivered, or it is counted why not; what comes before the range is not counted."""
    log, backend = topic(), Backend()
    log.append(0, 20_100, b"no arrow", codec.headers(5, "test"))
    log.append(0, 20_200, b"no arrow either", [("schema", b"1")])
    log.append(0, 20_300, *message([7777]))
    log.append(0, 21_000, *heartbeat())
    log.append(0, 22_000, *message([1]))
    # Behind the fourth second: what the first seconds told is read, and not counted.
    ours = replayed(log, legs(log, shape(CUT, dedup=DEDUP), 12, committed=24), backend)
    size = sum(len(one.value() or b"") for one in log.messages[0][12:24])
    assert tally(ours) == {
        "messages": 12,
        "bytes": size,
        "batches": 6,
        "records": 23,
        "delivered": 14,
        "duplicate": 3,
        "corrupt": 6,
    }
    assert ours.tally.in_flight == 0
    assert len(backend.has) == 5
    assert progress(ours.strands)[0] == progress(ours.strands)[1] > 0
    assert [(one.begins.start, one.ends.end) for one in ours.strands.values() if one.begins and one.ends] == [(12, 24)]


def test_flows_that_others_told_are_counted() -> None:
    """What the lease drops is neither delivered nor lost."""
    log = Topic()
    address = bytes(16)
    for step, exporter in enumerate([1, 2, 1, 2]):
        seen_by = [bytes(15) + bytes([exporter])]
        batch = flows([step], sampler_address=seen_by, src_addr=[address], dst_addr=[address], sampling_rate=[1])
        log.append(0, 10_000 + 500 * step, bytes(codec.encode(batch)), codec.headers(1, "test"))
    drop = DedupConfig(exact=None, flow=FlowDedupConfig(policy="lease", action="drop"))
    ours = replayed(log, legs(log, shape(CUT, dedup=drop), committed=4), Backend())
    assert (ours.tally.delivered, ours.tally.other_exporter, ours.tally.in_flight) == (2, 2, 0)


def test_a_dry_run_counts_what_a_replay_delivers() -> None:
    """To the record, and nothing is handed to anybody."""
    log = topic()
    counted = [
        replayed(log, legs(log, shape(CUT, dedup=DEDUP)), target).tally  # type: ignore[arg-type]
        for target in (Nowhere(), Backend())
    ]
    assert counted[0] == counted[1] != Tally()


def test_a_part_of_a_batch_has_a_name_of_its_own() -> None:
    """Records of one exporter are delivered by a token that tells them from the batch, the same each time."""
    log, backend = topic(), Backend()
    edge = Selection(names=("edge",))
    ours = replayed(log, legs(log, shape(CUT, dedup=DEDUP)), backend, selection=edge)
    assert {token.only for token in backend.has} == {edge.mark}
    assert all(set(table["sampler_name"].to_pylist()) == {"edge"} for table, _ in backend.has.values())
    assert ours.tally.not_selected == 18
    assert ours.tally.in_flight == 0
    whole = Backend()
    replayed(log, legs(log, shape(CUT, dedup=DEDUP)), whole)
    names = {Token(token.topic_id, token.partition, token.start, token.end) for token in backend.has}
    assert names <= whole.has.keys()
    assert len({str(token) for token in [*backend.has, *whole.has]}) == len(backend.has) + len(whole.has)


@pytest.mark.parametrize("keep_raw", [True, False])
def test_what_is_selected_is_added_up(keep_raw: bool) -> None:
    """Sums are of the records that were asked for, and dedup knows the others all the same."""
    log, backend = topic(), Backend()
    sums = AggregateConfig(keys=("src_as",), keep_raw=keep_raw)
    of = shape(CUT, dedup=DEDUP, aggregate=sums)
    ours = replayed(log, legs(log, of), backend, selection=Selection(names=("edge",)))
    told = sum(sum(added["records"].to_pylist()) for _, added in backend.has.values() if added is not None)
    assert told == ours.tally.delivered == 13
    assert sum(table.num_rows for table, _ in backend.has.values()) == (13 if keep_raw else 0)


def test_observation_points_are_judged_with_a_selection_too() -> None:
    """What does not count is left out whether or not something is selected."""
    log = Topic()
    batch = flows(
        [1, 2],
        sampler_name=["edge", "edge"],
        flow_direction=[0, 0],
        in_if_boundary=["external", "internal"],
        out_if_boundary=["internal", "internal"],
    )
    log.append(0, 10_000, bytes(codec.encode(batch)), codec.headers(2, "test"))
    point = DedupConfig(flow=FlowDedupConfig(policy="observation_point", action="drop"))
    for selection in (EVERYTHING, Selection(names=("edge",))):
        ours = replayed(log, legs(log, shape(CUT, dedup=point), committed=1), Backend(), selection=selection)
        assert (ours.tally.delivered, ours.tally.other_exporter) == (1, 1)


def test_a_pace_holds_back_batches() -> None:
    """The first batch goes at once, and each next one when those before it had their time; then nothing is read."""
    clock, log, backend = FakeClock(100.0), topic(), Backend()
    pace = Pace(4.0, clock)
    ours = Replay(
        legs(log, shape(CUT, dedup=DEDUP)), TOPIC_ID, reader=log, target=backend, selection=EVERYTHING, pace=pace
    )
    ours.start()
    went: list[float] = []
    for _ in range(40):
        ours.turn()
        if len(backend.has) > len(went):
            went.append(clock.seconds)
        clock.advance(0.25)
    assert ours.finished
    sizes = [table.num_rows for table, _ in backend.has.values()]
    assert went == [went[0] + sum(sizes[:number]) / 4 for number in range(len(sizes))]


def test_a_batch_that_is_not_taken_does_not_let_those_behind_it_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many batches are delivered behind it, and nothing more is read until it is taken."""
    monkeypatch.setattr("forwarder.replay.run.MOST_AHEAD", 3)
    log, backend = topic(), Backend()
    first: list[Finished] = []
    log.chunk = 1

    def take_finished() -> list[Finished]:
        finished, backend._finished = backend._finished, []
        first.extend(one for one in finished if one.parcel.token.start == 0)
        return [one for one in finished if one.parcel.token.start]

    with monkeypatch.context() as patched:
        patched.setattr(backend, "take_finished", take_finished)
        ours = Replay(
            legs(log, shape(CUT, dedup=DEDUP)),
            TOPIC_ID,
            reader=log,
            target=backend,
            selection=EVERYTHING,
            pace=Pace(None),
        )
        ours.start()
        for _ in range(40):
            ours.turn()
        assert (len(backend.has), ours.strands[0].assembly.ahead, ours.finished) == (4, 3, False)
    backend._finished += first
    for _ in range(40):
        ours.turn()
    assert ours.finished


def test_a_sink_that_refuses_for_good_ends_it() -> None:
    """The message has the batch, and what the sink said; what comes after it is not tried."""
    log, backend = topic(), Backend(Refused("no such table"))
    with pytest.raises(SluicewayError, match=r"refuses the batch .*:0:0-2 for good: no such table"):
        replayed(log, legs(log, shape(CUT, dedup=DEDUP)), backend)


def test_records_that_the_sink_refuses_are_put_away_and_counted() -> None:
    """The rest of the batch is delivered, and the books balance."""
    log, sink, box = topic(), MemorySink(), FakeLetterbox()
    sink.refuses = {5}
    delivery = Delivery(
        sink,
        Policy(base_seconds=0.0),
        name="memory",
        topic="flows.records",
        letterbox=box,
        book=Book(),
        throttle=Throttle(),
    )
    delivery.start()
    ours = replayed(log, legs(log, shape(CUT, dedup=DEDUP)), delivery)  # type: ignore[arg-type]
    delivery.close(5.0)
    assert (ours.tally.refused, ours.tally.in_flight, len(box.letters)) == (1, 0, 1)
    assert len(sink.record_ids()) == ours.tally.delivered


def test_a_log_that_is_not_cut_as_it_was_is_not_delivered() -> None:
    """A group's offset in the middle of a batch was never a cut: whatever holds it is not what was delivered."""
    log, backend = topic(), Backend()
    log.chunk = 1
    with pytest.raises(CutsDifferError, match="was cut at offset 17, and now a batch reaches from 16"):
        replayed(log, legs(log, shape(CUT, dedup=DEDUP), committed=17), backend)
    assert max(token.end for token in backend.has) == 16


def test_where_the_sink_has_nothing_such_a_cut_is_made() -> None:
    """The range ends with the group's offset all the same, since what is behind it is delivered by the forwarder."""
    log, backend = topic(), Backend()
    told = {0: Delivered(17, Noted())}
    of = shape(CUT, dedup=DEDUP)
    replayed(log, plan(log, told, {0: Span(3, NO_END)}, otherwise=of), backend)
    assert max(token.end for token in backend.has) == 17
    assert min(token.start for token in backend.has) == 2


def test_the_end_of_the_log_ends_the_last_batch() -> None:
    """When the group has committed to the end of the log, nothing follows that would close the batch."""
    log, backend = topic(), Backend()
    replayed(log, legs(log, shape(CUT, dedup=DEDUP), committed=20), backend)
    assert max(token.end for token in backend.has) == 20


def test_a_message_of_an_unknown_schema_ends_it() -> None:
    """Where and why is said; it is not skipped."""
    log = topic()
    log.append(0, 20_000, b"", [("schema", b"99")])
    log.append(0, 21_000, *message([1]))
    with pytest.raises(SluicewayError, match=r"partition 0 cannot be replayed behind offset 20: .* schema version 99"):
        replayed(log, legs(log, shape(CUT, dedup=DEDUP), committed=22), Backend())


class Slow(Backend):
    """Acknowledges nothing before it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Finished] = []

    def submit(self, parcel: Parcel) -> None:
        """Keep the acknowledgement."""
        super().submit(parcel)
        self.held += super().take_finished()

    def take_finished(self) -> list[Finished]:
        """Nothing."""
        return []


def test_what_is_not_acknowledged_is_not_reached() -> None:
    """A stop keeps the lowest cut that the sink has everything before."""
    log, slow = topic(), Slow()
    ours = Replay(
        legs(log, shape(CUT, dedup=DEDUP)), TOPIC_ID, reader=log, target=slow, selection=EVERYTHING, pace=Pace(None)
    )
    ours.start()
    for _ in range(5):
        ours.turn()
    assert not ours.finished
    assert not ours.stop(0.0)
    assert ours.strands[0].reached == 0
    assert ours.tally.in_flight == ours.tally.records - ours.tally.duplicate > 0
