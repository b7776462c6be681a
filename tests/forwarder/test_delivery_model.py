"""Members of a group that sleep and wake behind their successors' backs: what the backend gets is the log, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from forwarder.config import CutConfig, DedupConfig
from forwarder.consumer import LogConsumer
from forwarder.course import TooManyShapesError, read_note
from forwarder.cut import Token
from forwarder.delivery import Finished, Parcel
from forwarder.heartbeat import BrokerClock
from forwarder.ledger import Ledger
from forwarder.service import Plan, SinkService
from forwarder.shape import Shape
from forwarder.sinks.base import Done
from shared.config import KafkaConfig
from shared.log import Throttle
from shared.metrics import Book
from tests.fakes import FakeClock, FakeMessage, FakePulse, MemorySink
from tests.forwarder.kafka_client import Broker, FakeClient, FakeError, end
from tests.forwarder.records import heartbeat, message, shape
from tests.fuzz import looked_at

TOPIC = "flows"
PARTITIONS = (0, 1)
MOST_MEMBERS = 3
MOST_IN_HAND = 4
"""Batches that a sink has in hand, so that some wait behind them."""
NUMBERS = st.sampled_from([0, 0, 0, 1])
HEIRS = st.none() | st.integers(0, 2)
"""The settings of the member that comes instead of another, if one does."""
SHAPES = [
    shape(CutConfig(interval_ms=interval_ms, max_records=max_records), dedup=DedupConfig(exact=None))
    for interval_ms, max_records in ((1000, 5), (1000, 2), (400, 3), (2500, 7))
]


class Kafka:
    """A topic, and who owns which of its partitions by what the group's coordinator knows."""

    def __init__(self) -> None:
        self.log: dict[int, list[FakeMessage]] = {number: [] for number in PARTITIONS}
        self.lows = dict.fromkeys(PARTITIONS, 0)
        self.highs = dict.fromkeys(PARTITIONS, 0)
        self.reached = dict.fromkeys(PARTITIONS, 0)
        """Before which offset somebody has read."""
        self.broker = Broker(lows=self.lows, highs=self.highs)
        self.owners: dict[int, Member | None] = dict.fromkeys(PARTITIONS)

    def append(self, number: int, later_ms: int, records: int) -> None:
        """Append a message, or a heartbeat where there are no records; each record's id tells where it is."""
        log = self.log[number]
        append_ms = (log[-1].append_ms if log else 0) + later_ms
        first = number * 1_000_000 + len(log) * 100
        value, headers = message(range(first, first + records)) if records else heartbeat()
        log.append(FakeMessage((number, len(log)), append_ms, value, tuple(headers)))
        self.highs[number] = len(log)

    def committed(self, number: int) -> int:
        """The group's offset; 0 when there is none."""
        return self.broker.committed.get(number, (0, None))[0]

    def records(self) -> set[int]:
        """The ids of all records that the log has or had."""
        return {
            number * 1_000_000 + one.offset() * 100 + row
            for number, log in self.log.items()
            for one in log
            for row in range(int(dict(one.pairs)["records"] or 0))
        }


class Client(FakeClient):
    """A member's client: it fetches from the log, and commits as long as the coordinator takes it for a member.

    ``fenced`` says that the coordinator has given the member up, and that the member has not heard of it. It still
    fetches then, for Kafka asks nobody who fetches whether he may.
    """

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(kafka.broker)
        self.kafka = kafka
        self.fenced = False
        self.losing: Collection[int] = ()
        self._on_lost: Callable[..., None] | None = None
        self._on_commit: Callable[..., None] | None = None
        self._answers: list[tuple[KafkaError | None, list[TopicPartition]]] = []

    def made(self, properties: dict[str, Callable[..., None]]) -> Client:
        """Be what the consumer makes."""
        self._on_commit = properties["on_commit"]
        return self

    def subscribe(
        self, topics: object, on_assign: Callable[..., None], on_revoke: Callable[..., None], **others: object
    ) -> None:
        """Join."""
        super().subscribe(topics, on_assign, on_revoke)
        self._on_lost = others["on_lost"]  # type: ignore[assignment]

    def consume(self, most: int, seconds: float) -> list[FakeMessage | FakeError]:
        """Up to so many messages of each partition, behind what has come to pass."""
        answers, self._answers = self._answers, []
        losing, self.losing = self.losing, ()
        if self._on_commit is not None:
            for answer in answers:
                self._on_commit(*answer)
        if losing and self._on_lost is not None:
            self._on_lost(self, [TopicPartition(TOPIC, number) for number in losing])
        super().consume(most, seconds)
        return [one for number in sorted(self.assigned) for one in self._fetch(number, most)] if most else []

    def _fetch(self, number: int, most: int) -> list[FakeMessage | FakeError]:
        begin = self.assigned[number]
        if begin < self.kafka.lows[number]:
            # Assumed, see GroupModel: whoever was away for so long hears that first.
            return [] if self.fenced else [FakeError(number, KafkaError._AUTO_OFFSET_RESET)]
        fetched = self.kafka.log[number][begin : begin + most]
        self.assigned[number] = begin + len(fetched)
        self.kafka.reached[number] = max(self.kafka.reached[number], self.assigned[number])
        return [*fetched, *([end(number)] if len(fetched) < most else [])]

    def seek(self, name: TopicPartition) -> None:
        """Go on elsewhere."""
        self.assigned[name.partition] = name.offset

    def commit(self, offsets: Sequence[TopicPartition], **how: object) -> list[TopicPartition]:
        """Commit; whom the coordinator has given up is told so."""
        refused = KafkaError(KafkaError.ILLEGAL_GENERATION) if self.fenced else None
        if refused is None:
            super().commit(offsets)
        if how["asynchronous"]:
            self._answers.append((refused, list(offsets)))
        elif refused is not None:
            raise KafkaException(refused)
        return list(offsets)


class Hands:
    """A delivery without threads: what it has in hand reaches the backend when the test says so.

    ``behind`` are the offsets at which it lets no batch begin, by partition.
    """

    def __init__(self, lost: list[Parcel]) -> None:
        self.parcels: list[Parcel] = []
        self.finished: list[Finished] = []
        self.behind: dict[int, int] = {}
        self._lost = lost

    @property
    def has_room(self) -> bool:
        """Whether another may be submitted."""
        return len(self.parcels) < MOST_IN_HAND

    def submit(self, parcel: Parcel) -> None:
        """Take it in hand."""
        if parcel.token.start < self.behind.get(parcel.token.partition, parcel.token.end):
            self.parcels.append(parcel)

    def take_finished(self) -> list[Finished]:
        """Those that the member has heard of."""
        finished, self.finished = self.finished, []
        return finished

    def in_flight(self) -> Counter[int]:
        """Nobody is to wait for them."""
        return Counter()

    def forget_waiting(self, partitions: Iterable[int]) -> None:
        """Each of them is in somebody's hand."""

    def forget(self, partitions: Iterable[int]) -> None:
        """Tell no more of them; they may arrive all the same."""
        going = set(partitions)
        self._lost += [one for one in self.parcels if one.token.partition in going]
        self.parcels = [one for one in self.parcels if one.token.partition not in going]
        self.finished = [one for one in self.finished if one.parcel.token.partition not in going]


@dataclass(eq=False)
class Member:
    """A member of the group: the service of a sink with its consumer, whose loop the test turns, part by part."""

    kafka: Kafka
    shape: Shape
    lost: list[Parcel]
    client: Client = field(init=False)
    hands: Hands = field(init=False)
    service: SinkService = field(init=False)
    consumer: LogConsumer = field(init=False)

    def __post_init__(self) -> None:
        self.client, self.hands = Client(self.kafka), Hands(self.lost)
        book, throttle = Book(), Throttle()
        self.service = SinkService(
            Plan(sink="memory", topic=TOPIC, retention_seconds=3600),
            sink=MemorySink(),
            delivery=self.hands,  # type: ignore[arg-type]
            ledger=Ledger("memory", TOPIC, book),
            connect=lambda _: self.consumer,
            pulse=FakePulse(),
            clock=BrokerClock(FakeClock().ms, FakeClock()),
            book=book,
            throttle=throttle,
        )
        self.consumer = LogConsumer(
            KafkaConfig(),
            topic=TOPIC,
            group_id="group",
            client_id="test",
            shape=lambda _: self.shape,
            listener=self.service,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("forwarder.consumer.consumer", self.client.made)
            patch.setattr("forwarder.consumer.admin", lambda config, client_id: self.kafka.broker)
            self.consumer.open()

    def turn(self, most: int) -> None:
        """What the service does each time round, but for the commit and what it shows."""
        self.kafka.broker.asked = 0
        self.service._settle()
        self.service._submit()
        for one in self.consumer.poll(most, 0):
            self.service._push(self.consumer, one)
        self.service._submit()

    def crash(self) -> None:
        """Be gone; what was on its way to the backend may arrive."""
        self.hands.forget(PARTITIONS)

    def stop(self) -> None:
        """End as after a signal: what is cut by now and not delivered stays in Kafka, or is on its way."""
        self.service._settle()
        self.service.gone(list(self.consumer.partitions))
        self.consumer._leave(self.client)  # type: ignore[arg-type]


class GroupModel(RuleBasedStateMachine):
    """Members come, crash, stop, fall asleep and wake; batches reach the backend in any order, late or twice.

    Kafka gives the partitions of a member that sleeps to others, and takes no commit of it any more. When it wakes it
    goes on as if nothing had been: it reads, cuts, and delivers, until it hears. So two members read one partition, and
    what they deliver has to be cut in the same places.

    **Assumed**, for it does not hold otherwise:

    - Where settings differ, a member that wakes delivers no batch that begins behind the end which the log had when its
      partition was given to another. Where all have the same settings, it may read and deliver whatever it likes.
    - A member that wakes hears that it has lost its partition before it hears that what comes next has expired. Else it
      would make a batch of what it had read so far, and others have made another of that.

      Both are so since a consumer that read nothing for some seconds asks the group before it hands over what it reads
      then (`LogConsumer.poll`); time does not pass in this model.
    - The log's start never comes to lie behind the group's offset and among messages that anybody has read, so that no
      batch loses its head which may have been delivered.
    """

    assumed = True

    def __init__(self) -> None:
        super().__init__()
        self.kafka = Kafka()
        self.awake: list[Member] = []
        self.asleep: list[Member] = []
        self.lost: list[Parcel] = []
        """On their way to the backend from members that know no more of it."""
        self.backend: dict[Token, list[int]] = {}
        self.brought: dict[int, Token] = {}
        self.expired: set[int] = set()

    @initialize(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3, unique_by=lambda one: one.text()))
    def first(self, shapes: list[Shape]) -> None:
        """One member has everything."""
        self.shapes = shapes
        self.begin_with(0)

    def teardown(self) -> None:
        """Everybody is gone, and one reads to the end: the backend has the log, once, whatever arrives late."""
        for member in [*self.awake, *self.asleep]:
            member.crash()
        self.awake, self.asleep, self.kafka.owners = [], [], dict.fromkeys(PARTITIONS)
        if not self.kafka.records():
            return
        for number in PARTITIONS:
            self.kafka.append(number, 10_000, 0)
            self.reads_to_the_end(number)
        # What is lost on its way must not be missed, and what comes late must not be too much.
        assert set(self.brought) | self.expired >= self.kafka.records() >= set(self.brought)
        for parcel in self.lost:
            self.arrives(parcel)

    def reads_to_the_end(self, number: int) -> None:
        """The last member of a partition, with the settings that it was read with last."""
        noted = read_note(self.kafka.broker.committed.get(number, (0, None))[1])
        member = Member(self.kafka, noted.epochs[-1].shape if noted.epochs else self.shapes[0], [])
        self.awake.append(member)
        self.give(member, number)
        while self.kafka.committed(number) < self.kafka.highs[number]:
            before = len(self.brought), self.kafka.reached[number], member.client.assigned[number]
            member.turn(5)
            self.all_arrive(member)
            member.consumer.commit()
            after = len(self.brought), self.kafka.reached[number], member.client.assigned[number]
            assert before != after or self.kafka.committed(number) == self.kafka.highs[number]

    # --- what the log and the backend do

    @rule(
        number=NUMBERS,
        messages=st.lists(
            st.tuples(st.sampled_from([0, 10, 300, 900]), st.sampled_from([1, 1, 2, 3, 6, 0])), min_size=1, max_size=6
        ),
    )
    def append(self, number: int, messages: list[tuple[int, int]]) -> None:
        """Messages come."""
        for later_ms, records in messages:
            self.kafka.append(number, later_ms, records)

    @rule(number=NUMBERS, where=st.integers(0, 20), unread=st.booleans())
    def expire(self, number: int, where: int, unread: bool) -> None:
        """The log's start goes on: over what the group has committed, or over all that was read and more."""
        kafka = self.kafka
        first = kafka.reached[number] + 1 if unread else kafka.lows[number]
        last = kafka.highs[number] if unread else kafka.committed(number)
        low = min(first + where, last)
        if first <= low:
            first_id = number * 1_000_000
            self.expired |= kafka.records() & set(range(first_id + kafka.committed(number) * 100, first_id + low * 100))
            kafka.lows[number] = low

    def arrives(self, parcel: Parcel) -> None:
        """The backend has a batch: as it was, if it has it already, and no record of any other."""
        ids = parcel.table["record_id"].to_pylist()
        assert self.backend.setdefault(parcel.token, ids) == ids
        for one in ids:
            assert self.brought.setdefault(one, parcel.token) == parcel.token

    def all_arrive(self, member: Member) -> None:
        """All that a member has cut is delivered, and it knows."""
        while member.hands.parcels:
            parcel = member.hands.parcels.pop(0)
            self.arrives(parcel)
            member.hands.finished.append(Finished(parcel, Done()))
            member.service._settle()
            member.service._submit()
        member.service._settle()

    @precondition(lambda self: any(member.hands.parcels for member in [*self.awake, *self.asleep]))
    @rule(who=st.integers(0, 5), which=st.integers(0, MOST_IN_HAND - 1), heard=st.booleans())
    def deliver(self, who: int, which: int, heard: bool) -> None:
        """A batch arrives; where that is not heard it is delivered again."""
        busy = [member for member in [*self.awake, *self.asleep] if member.hands.parcels]
        hands = busy[who % len(busy)].hands
        parcel = hands.parcels[which % len(hands.parcels)]
        self.arrives(parcel)
        if heard:
            hands.parcels.remove(parcel)
            hands.finished.append(Finished(parcel, Done()))

    @precondition(lambda self: self.lost)
    @rule(which=st.integers(0, 9))
    def deliver_late(self, which: int) -> None:
        """What a member had on its way that crashed or lost its partition arrives after all."""
        self.arrives(self.lost.pop(which % len(self.lost)))

    # --- what members do

    @precondition(lambda self: self.awake)
    @rule(who=st.integers(0, MOST_MEMBERS - 1), most=st.integers(1, 8), arrive=st.booleans())
    def poll(self, who: int, most: int, arrive: bool) -> None:
        """A member reads, and what that cuts may arrive at once."""
        self.turn(self.awake[who % len(self.awake)], most, arrive=arrive)

    @precondition(lambda self: self.asleep)
    @rule(who=st.integers(0, MOST_MEMBERS - 1), most=st.integers(1, 8), arrive=st.booleans())
    def poll_unaware(self, who: int, most: int, arrive: bool) -> None:
        """A member has woken, and reads what is not its own any more."""
        self.turn(self.asleep[who % len(self.asleep)], most, arrive=arrive)

    def turn(self, member: Member, most: int, *, arrive: bool) -> None:
        """A member reads; what it has cut by then arrives or stays in its hands."""
        member.turn(most)
        if arrive:
            self.all_arrive(member)

    @precondition(lambda self: self.awake or self.asleep)
    @rule(who=st.integers(0, 2 * MOST_MEMBERS - 1))
    def commit(self, who: int) -> None:
        """A member commits what it knows to have arrived; of one that the group has given up nothing is taken."""
        members = [*self.awake, *self.asleep]
        members[who % len(members)].service._settle()
        members[who % len(members)].consumer.commit()

    # --- members that come and go

    @precondition(lambda self: len(self.awake) + len(self.asleep) < MOST_MEMBERS)
    @rule(which=st.integers(0, 2))
    def begin(self, which: int) -> None:
        """A member comes, with any settings, and gets what nobody has."""
        self.begin_with(which)

    def begin_with(self, which: int) -> None:
        """A member with these settings gets what nobody has."""
        member = Member(self.kafka, self.shapes[which % len(self.shapes)], self.lost)
        self.awake.append(member)
        for number in self.free:
            self.give(member, number)

    @precondition(lambda self: self.awake and self.free)
    @rule(who=st.integers(0, MOST_MEMBERS - 1))
    def rebalance(self, who: int) -> None:
        """A member gets what nobody has."""
        member = self.awake[who % len(self.awake)]
        for number in self.free:
            self.give(member, number)

    @precondition(lambda self: any(self.kafka.owners.values()))
    @rule(number=NUMBERS, in_time=st.booleans())
    def revoke(self, number: int, in_time: bool) -> None:
        """A partition is taken away in order, when all that was cut of it has arrived or without that."""
        owner = self.kafka.owners[number]
        if owner is not None:
            if in_time:
                self.all_arrive(owner)
            owner.client.taking = [number]
            owner.turn(0)
            self.kafka.owners[number] = None

    @precondition(lambda self: self.awake)
    @rule(who=st.integers(0, MOST_MEMBERS - 1), in_time=st.booleans(), heir=HEIRS)
    def stop(self, who: int, in_time: bool, heir: int | None) -> None:
        """A member stops in order, when all that was cut has arrived or without that, and another may come instead."""
        member = self.awake[who % len(self.awake)]
        if in_time:
            self.all_arrive(member)
        member.stop()
        self.gone(member)
        self.inherit(heir)

    @precondition(lambda self: self.awake or self.asleep)
    @rule(who=st.integers(0, 2 * MOST_MEMBERS - 1), heir=HEIRS)
    def crash(self, who: int, heir: int | None) -> None:
        """A member is killed, and another may come instead."""
        members = [*self.awake, *self.asleep]
        members[who % len(members)].crash()
        self.gone(members[who % len(members)])
        self.inherit(heir)

    @precondition(lambda self: self.awake)
    @rule(who=st.integers(0, MOST_MEMBERS - 1), heir=HEIRS)
    def fall_asleep(self, who: int, heir: int | None) -> None:
        """A member sleeps for so long that the group gives it up, and another may come instead."""
        member = self.awake[who % len(self.awake)]
        member.client.fenced = True
        self.gone(member)
        self.asleep.append(member)
        self.inherit(heir)

    @precondition(lambda self: self.asleep)
    @rule(who=st.integers(0, MOST_MEMBERS - 1))
    def hear(self, who: int) -> None:
        """A member that has slept hears what it has lost, and joins again."""
        member = self.asleep.pop(who % len(self.asleep))
        member.client.losing = list(member.consumer.partitions)
        member.turn(0)
        member.client.fenced = False
        member.hands.behind.clear()
        self.awake.append(member)

    def inherit(self, heir: int | None) -> None:
        """Another comes, if one is to come and there is room for it."""
        if heir is not None and len(self.awake) + len(self.asleep) < MOST_MEMBERS:
            self.begin_with(heir)

    @property
    def free(self) -> list[int]:
        """The partitions that nobody has."""
        return [number for number, owner in self.kafka.owners.items() if owner is None]

    def give(self, member: Member, number: int) -> None:
        """A member is told that a partition is its own; one whose settings have no room beside the offset ends."""
        if member not in self.awake:
            return
        for one in self.asleep:
            if self.assumed and len(self.shapes) > 1 and number in one.consumer.partitions:
                one.hands.behind.setdefault(number, self.kafka.highs[number])
        self.kafka.owners[number] = member
        member.client.giving = [number]
        try:
            member.turn(0)
        except TooManyShapesError:
            member.crash()
            self.gone(member)

    def gone(self, member: Member) -> None:
        """The group knows a member no more."""
        self.awake = [one for one in self.awake if one is not member]
        self.asleep = [one for one in self.asleep if one is not member]
        for number, owner in self.kafka.owners.items():
            if owner is member:
                self.kafka.owners[number] = None


GroupModel.TestCase.settings = settings(looked_at(60, 5_000), stateful_step_count=50)
TestGroup = GroupModel.TestCase
