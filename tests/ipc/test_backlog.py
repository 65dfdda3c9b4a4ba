"""What an emitter holds, against a plain list: whatever is gathered, sent, sent again or durable."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ipc.backlog import SMALL, Backlog, Gathered, Lot
from ipc.frames import Fields, Meta

Named = tuple[Meta, Fields]


def event(seq: int, *, step: str = "reading", type_: str = "progress") -> Fields:
    return (type_, "qa", step, 0, str(seq), {}, None, 0.0)


def named(lots: list[Lot]) -> list[Named]:
    return [pair for lot in lots for pair in zip(lot.metas(), lot.events, strict=True)]


class Given:
    """Gives numbers as an emitter does."""

    def __init__(self, gathered: Gathered) -> None:
        self.gathered = gathered
        self.all: list[Named] = []
        self.critical = 0

    def give(self, *, critical: bool = False, step: str = "reading", size: int = SMALL) -> None:
        seq = len(self.all) + 1
        one = event(seq, step=step, type_="finding" if critical else "progress")
        self.all.append((Meta(seq, self.critical, critical), one))
        if critical:
            self.critical = seq
        self.gathered.add(seq, one, critical=critical, size=size)


def test_pressure_leaves_the_latest_of_each_step() -> None:
    """Coalesced is what newer progress of the same step replaces, and never across a critical event."""
    gathered = Gathered(coalesce=True, step=8, most_loose=100, most_loose_bytes=10**6)
    source = Given(gathered)
    for step in ("a", "b", "a", "b"):
        source.give(step=step)
    source.give(critical=True)
    for step in ("a", "b", "a"):
        source.give(step=step)
    lots = gathered.take()
    assert [meta.seq for meta, _ in named(lots)] == [3, 4, 5, 7, 8]
    assert [meta for meta, _ in named(lots)] == [source.all[seq - 1][0] for seq in (3, 4, 5, 7, 8)]
    assert gathered.coalesced == 3
    assert len(gathered) == 0


def test_large_progress_is_bounded_by_its_bytes() -> None:
    """Whether coalesced or not: beyond so many bytes the oldest progress goes, and no critical event."""
    for coalesce in (True, False):
        gathered = Gathered(coalesce=coalesce, step=4, most_loose=1000, most_loose_bytes=10_000)
        source = Given(gathered)
        source.give(critical=True, size=50_000)
        for n in range(100):
            source.give(step=f"step {n}", size=1000)
        found = [meta.seq for meta, _ in named(gathered.take())]
        assert found[0] == 1
        assert found[-1] == 101
        assert len(found) <= 16
        assert gathered.dropped == 101 - len(found)


def test_a_batch_keeps_to_its_limits() -> None:
    """Neither more events nor more bytes than asked for, but one event at least."""
    backlog = Backlog()
    backlog.take([Lot(1, 0, [event(seq) for seq in range(1, 11)], [], {4: 500, 5: 5000})])
    assert [len(lot.events) for lot in backlog.next_batch(2, 10_000)] == [2]
    assert [lot.last for lot in backlog.next_batch(100, 3 * SMALL + 500)] == [2, 4]
    assert backlog.unsent == 10
    backlog.was_sent(backlog.next_batch(100, 3 * SMALL + 500))
    assert (backlog.unsent, backlog.sent, backlog.sent_bytes) == (6, 4, 3 * SMALL + 500)
    assert [lot.first for lot in backlog.next_batch(100, 10)] == [5]
    backlog.take([Lot(11, 0, [event(11), event(12)])])
    assert [lot.last for lot in backlog.next_batch(100, 5000 + 6 * SMALL)] == [5, 10, 11]


def test_tags_are_the_pairs_that_occur() -> None:
    """Also of what was thinned out or cut in two, where they may name more."""
    for coalesce in (True, False):
        gathered = Gathered(coalesce=coalesce, step=3, most_loose=100, most_loose_bytes=10**6)
        source = Given(gathered)
        for n in range(7):
            source.give(critical=n % 4 == 3, step=f"s{n % 2}")
        backlog = Backlog()
        backlog.take(gathered.take())
        while batch := backlog.next_batch(2, 10**6):
            for lot in batch:
                assert (
                    {(event[1], event[0]) for event in lot.events}
                    <= lot.tags
                    <= {("qa", "progress"), ("qa", "finding")}
                )
            backlog.was_sent(batch)


class Holding(RuleBasedStateMachine):
    """Events given, thinned out, taken, sent, sent again, durable; the model is lists of what is where."""

    def __init__(self) -> None:
        super().__init__()
        self.gathered = Gathered(coalesce=False, step=3, most_loose=10**6, most_loose_bytes=10**9)
        self.source = Given(self.gathered)
        self.backlog = Backlog()
        self.durable = self.sent = 0

    @rule(kinds=st.text("CPL", min_size=1, max_size=7))
    def give(self, kinds: str) -> None:
        for kind in kinds:
            self.source.give(critical=kind == "C", size=900 if kind == "L" else SMALL)

    @rule()
    def take(self) -> None:
        if not self.backlog.unsent:
            self.backlog.take(self.gathered.take())

    @rule(events=st.integers(1, 6), size=st.sampled_from([10, 200, 2000]))
    def send(self, events: int, size: int) -> None:
        batch = self.backlog.next_batch(events, size)
        expected = self.unsent()[: len(named(batch))]
        assert named(batch) == expected
        assert len(expected) <= events
        assert bool(batch) == bool(self.backlog.unsent)
        self.backlog.was_sent(batch)
        self.sent += len(expected)

    @rule(part=st.floats(0, 1))
    def hear(self, part: float) -> None:
        self.durable = max(self.durable, int(self.sent * part))
        self.backlog.forget(self.durable)

    @rule(part=st.floats(0, 1))
    def go_back(self, part: float) -> None:
        above = max(self.durable, int(self.sent * part))
        assert self.backlog.send_again(above) == self.sent - above
        self.sent = above

    def unsent(self) -> list[Named]:
        return self.source.all[self.sent : self.sent + self.backlog.unsent]

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.backlog.sent == self.sent - self.durable
        assert self.backlog.sent + self.backlog.unsent + len(self.gathered) == len(self.source.all) - self.durable
        large = sum(1 for meta, _ in self.source.all[self.durable : self.sent] if self.is_large(meta.seq))
        assert self.backlog.sent_bytes == SMALL * (self.backlog.sent - large) + 900 * large
        waiting = [one for one in (self.backlog.oldest(), self.gathered.oldest()) if one is not None]
        assert waiting[:1] == ([self.durable + 1] if self.durable < len(self.source.all) else [])

    def is_large(self, seq: int) -> bool:
        return seq in self.large

    @property
    def large(self) -> set[int]:
        lots = [*self.backlog._sent, *self.backlog._unsent, *self.gathered._whole, self.gathered.lot]
        return {seq for lot in lots for seq in lot.large}


TestHolding = Holding.TestCase
TestHolding.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
