"""The two containers against a sorted list and a plain one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from docs_store.queues import Queue, Recent

ranks = st.text("012ox", min_size=1, max_size=4)
ids = st.text("ab-", min_size=1, max_size=3)


@given(st.lists(st.tuples(st.booleans(), ranks, ids)), ranks)
def test_a_queue_is_a_sorted_list(steps: list[tuple[bool, str, str]], prefix: str) -> None:
    """Whatever is added and discarded, what begins with a prefix comes in the order of ranks."""
    queue, plain = Queue(), set[tuple[str, str]]()
    for add, rank, key in steps:
        if add and (rank, key) not in plain:
            queue.add(rank, key)
            plain.add((rank, key))
        elif not add:
            queue.discard(rank, key)
            plain.discard((rank, key))
    expected = sorted(f"{rank} {key}" for rank, key in plain)
    assert queue.entries == expected
    assert list(queue) == [entry.split(" ")[1] for entry in expected]
    there = [entry.split(" ")[1] for entry in expected if entry.startswith(prefix)]
    assert queue.ids(prefix) == there
    assert queue.ids(prefix, 2) == there[:2]
    start, end = queue.bounds(prefix)
    assert end - start == len(there)


@given(st.lists(st.integers(0, 30).map(str), unique=True), st.integers(1, 5))
def test_recent_counts_all_and_keeps_the_last(keys: list[str], most: int) -> None:
    """The count is of everything; the ids are the last ones, oldest first; what is taken out is not counted."""
    recent = Recent()
    for key in keys:
        recent.add(key, most)
    assert (recent.count, recent.ids) == (len(keys), keys[-most:])
    for key in keys:
        recent.discard(key)
    assert (recent.count, recent.ids) == (0, [])
