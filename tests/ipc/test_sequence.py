"""The sequencer against a plain list: whatever is sent, re-sent, held, lost or salvaged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipc.frames import Meta
from ipc.sequence import (
    Admitted,
    Batch,
    Held,
    Marks,
    Refused,
    Sequencer,
    Stage,
    Verdict,
    judge,
    judge_frame,
)


def metas_of(program: str) -> list[Meta]:
    """What an emitter gives for C (critical) and P (progress)."""
    metas: list[Meta] = []
    prev = 0
    for seq, kind in enumerate(program, 1):
        metas.append(Meta(seq, prev, kind == "C"))
        if kind == "C":
            prev = seq
    return metas


def batch(epoch: int, metas: list[Meta], size: int = 0) -> Batch:
    return Batch(worker="qa", epoch=epoch, metas=metas, payload=None, size=size)


def test_a_gap_stops_the_frame() -> None:
    """Nothing behind a missing critical event is accepted, critical or not."""
    metas = metas_of("CCPC")
    judgement = judge_frame(Marks(), metas[1:])
    assert judgement.accepted == ()
    assert judgement.gap
    assert judgement.marks == Marks()


def test_an_overlap_is_cut() -> None:
    """A frame that is partly known is taken only in part."""
    metas = metas_of("CPCP")
    first = judge_frame(Marks(), metas[:2])
    second = judge_frame(first.marks, metas)
    assert second.accepted == (2, 3)
    assert second.duplicates == 2


def test_late_progress_is_refused() -> None:
    """Progress older than an accepted critical event is not stored after it, and counts as missed."""
    metas = metas_of("PPC")
    marks = judge_frame(Marks(), metas[2:]).marks
    judgement = judge_frame(marks, metas[:2])
    assert judgement.accepted == ()
    assert judgement.late == 2
    assert judgement.marks.missed == 2


def test_salvage_goes_on_behind_a_gap() -> None:
    """In salvage nobody can send again: what follows a gap is accepted, and the loss is named."""
    metas = metas_of("CCC")
    judgement = judge_frame(Marks(), [metas[0], metas[2]], salvage=True)
    assert judgement.accepted == (0, 1)
    assert judgement.lost == (1,)
    assert judgement.marks == Marks(3, 3, 1)


@given(
    program=st.text("CP", min_size=1, max_size=12),
    picks=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=12),
)
def test_a_frame_is_judged_as_its_events_are(program: str, picks: list[tuple[int, int]]) -> None:
    """The loop over a frame says what `judge` says of each event, up to the first gap."""
    metas = metas_of(program)
    marks = Marks()
    for start, length in picks:
        frame = metas[start : start + length]
        expected: list[int] = []
        now = marks
        for place, meta in enumerate(frame):
            verdict = judge(now, meta)
            if verdict is Verdict.GAP:
                break
            if verdict is Verdict.ACCEPTED:
                expected.append(place)
                missed = now.missed + max(meta.seq - now.seq - 1, 0)
                now = Marks(meta.seq if meta.critical else now.critical, max(meta.seq, now.seq), missed)
        judgement = judge_frame(marks, frame)
        assert list(judgement.accepted) == expected
        assert judgement.marks == now
        marks = judgement.marks


def test_a_stranger_is_refused() -> None:
    """Unknown epochs, wrong nonces and closed epochs get nothing in."""
    sequencer = Sequencer()
    sequencer.open("qa", 1, "n")
    one = batch(1, metas_of("C"))
    assert sequencer.admit(batch(2, metas_of("C")), "n") == Refused(batch(2, metas_of("C")), "unknown")
    assert sequencer.admit(one, "x") == Refused(one, "nonce")
    sequencer.fence("qa", 1)
    sequencer.close("qa", 1)
    assert sequencer.admit(one, "n") == Refused(one, "closed")
    sequencer.forget("qa", 1)
    assert sequencer.admit(one, "n") == Refused(one, "unknown")


def test_the_waiting_room_is_bounded() -> None:
    """Beyond so many batches or bytes a successor is told to send again, and loses nothing by it."""
    sequencer = Sequencer(hold_batches=3, hold_bytes=100)
    sequencer.open("qa", 1, "n")
    sequencer.open("qa", 2, "m")
    metas = metas_of("CCCC")
    assert isinstance(sequencer.admit(batch(2, metas[:1], 60), "m"), Held)
    too_large = sequencer.admit(batch(2, metas[1:2], 60), "m")
    assert isinstance(too_large, Refused)
    assert too_large.reason == "full"
    assert sequencer.take_gap("qa", 2)
    assert not sequencer.take_gap("qa", 2)
    sequencer.fence("qa", 1)
    sequencer.close("qa", 1)
    assert [a.batch.metas for a in sequencer.released()] == [metas[:1]]
    after = sequencer.admit(batch(2, metas[1:]), "m")
    assert isinstance(after, Admitted)
    assert len(after.judgement.accepted) == 3


def test_salvage_waits_for_older_epochs() -> None:
    """Salvage is refused for an epoch that is open, or while an older one is."""
    sequencer = Sequencer()
    sequencer.open("qa", 1, "n")
    sequencer.open("qa", 2, "m")
    with pytest.raises(ValueError, match="not ready"):
        sequencer.salvage(batch(1, metas_of("C")))
    sequencer.fence("qa", 2)
    with pytest.raises(ValueError, match="not ready"):
        sequencer.salvage(batch(2, metas_of("C")))


class Sequencing(RuleBasedStateMachine):
    """Two epochs that overlap, sent in any slices over and over, commits that fail; the model is what was emitted."""

    def __init__(self) -> None:
        super().__init__()
        self.sequencer = Sequencer(hold_batches=3)
        self.programs: dict[int, list[Meta]] = {1: [], 2: []}
        self.stored: list[tuple[int, Meta]] = []  # committed
        self.pending: list[tuple[int, Meta, Marks]] = []
        self.table: dict[int, Marks] = {1: Marks(), 2: Marks()}
        self.closed: set[int] = set()
        self.sequencer.open("qa", 1, "n1")
        self.sequencer.open("qa", 2, "n2")

    def take(self, admitted: Admitted) -> None:
        found = [admitted.batch.metas[place] for place in admitted.judgement.accepted]
        self.pending += [(admitted.batch.epoch, meta, admitted.judgement.marks) for meta in found]

    @rule(epoch=st.sampled_from([1, 2]), kinds=st.text("CP", min_size=1, max_size=4))
    def emit(self, epoch: int, kinds: str) -> None:
        if epoch in self.closed or self.sequencer.stage("qa", epoch) is not Stage.OPEN:
            return
        program = "".join("C" if meta.critical else "P" for meta in self.programs[epoch])
        self.programs[epoch] = metas_of(program + kinds)

    @rule(
        epoch=st.sampled_from([1, 2]),
        start=st.integers(0, 12),
        length=st.integers(1, 6),
        holes=st.sets(st.integers(0, 5)),
    )
    def send(self, epoch: int, start: int, length: int, holes: set[int]) -> None:
        chosen = self.programs[epoch][start : start + length]
        metas = [meta for i, meta in enumerate(chosen) if i not in holes]
        if not metas:
            return
        outcome = self.sequencer.admit(batch(epoch, metas), f"n{epoch}")
        if isinstance(outcome, Admitted):
            self.take(outcome)
        if epoch in self.closed:
            assert isinstance(outcome, Refused)

    @rule()
    def commit(self) -> None:
        for epoch, meta, marks in self.pending:
            self.stored.append((epoch, meta))
            self.table[epoch] = marks
        self.pending = []

    @precondition(lambda self: self.pending)
    @rule(stored=st.booleans())
    def fail_commit(self, stored: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
        if stored:
            self.commit()
        self.pending = []
        for epoch in {1, 2} - self.closed:
            self.sequencer.reset("qa", epoch, self.table[epoch])
            assert self.sequencer.take_gap("qa", epoch)

    @rule(epoch=st.sampled_from([1, 2]))
    def close(self, epoch: int) -> None:
        if epoch in self.closed or self.sequencer.older_open("qa", epoch):
            return
        self.sequencer.fence("qa", epoch)
        for admitted in self.sequencer.released():
            self.take(admitted)
        for meta in self.programs[epoch]:
            if meta.critical:
                salvaged = self.sequencer.salvage(batch(epoch, [meta]))
                assert not salvaged.judgement.lost
                self.take(salvaged)
        self.commit()
        self.sequencer.close("qa", epoch)
        self.closed.add(epoch)
        criticals = [meta for meta in self.programs[epoch] if meta.critical]
        assert [meta for e, meta in self.stored if e == epoch and meta.critical] == criticals
        given, missed = len(self.programs[epoch]), self.table[epoch].missed
        tail = given - self.table[epoch].seq
        assert sum(1 for e, _ in self.stored if e == epoch) + missed + tail == given
        for admitted in self.sequencer.released():
            self.take(admitted)

    @invariant()
    def in_order_and_once(self) -> None:
        names = [(epoch, meta.seq) for epoch, meta in self.stored]
        names += [(epoch, meta.seq) for epoch, meta, _ in self.pending]
        assert names == sorted(set(names))

    @invariant()
    def nothing_overtakes(self) -> None:
        for epoch in (1, 2):
            mine = [meta.seq for e, meta in self.stored if e == epoch and meta.critical]
            emitted = [meta.seq for meta in self.programs[epoch] if meta.critical]
            assert mine == emitted[: len(mine)]


TestSequencing = Sequencing.TestCase
TestSequencing.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
