"""What a person's save of a document did: a three-way merge against the view that the text began as. Pure.

`read_edit` says it as effects on items, questions where only the user can decide, and the text around the items.
`merge_text` is the merge of lines underneath, also for the strategic documents that Planning rewrites. Files, locks and
records are for `reconcile` and the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from .markdown import BOM, body, split, trailer


def merge_text(base: str, mine: str, theirs: str) -> str:
    """Both sides' changes of `base`; where they touch the same lines both stay, `theirs` first.

    No line that either side added is lost, and what one side deleted goes unless the other changed it. Our trailer is
    not merged: the result has that of `theirs`.
    """
    merged = _merged(split(_bare(base)), split(_bare(mine)), split(_bare(theirs)))
    start = BOM if mine.startswith(BOM) or theirs.startswith(BOM) else ""
    end = trailer(theirs)
    if end and merged and not merged[-1].endswith("\n"):
        merged[-1] += "\n"
    return start + "".join(merged) + end


def _bare(text: str) -> str:
    return body(text).removeprefix(BOM)


def _merged(base: list[str], mine: list[str], theirs: list[str]) -> list[str]:
    base, mine, theirs = ([*lines] for lines in (base, mine, theirs))
    for lines in (base, mine, theirs):  # a missing last line end is no change of that line
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
    out: list[str] = []
    for ours, old, new in _regions(base, mine, theirs):
        if ours == old:
            out += new
        elif new in (old, ours):
            out += ours
        else:
            out += [*new, *_added(old, ours, besides=new)]
    return out


def _added(old: Sequence[str], ours: Sequence[str], besides: Sequence[str]) -> list[str]:
    """The lines of `ours` that are not in `old`, less those that `besides` has as well."""
    known = [*old, *besides]
    out: list[str] = []
    for line in ours:
        if line in known:
            known.remove(line)
        elif line.strip() or out:
            out.append(line)
    return out


def _regions(base: list[str], mine: list[str], theirs: list[str]) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Cut the three into pieces (mine, base, theirs) between lines that all three share; the shared ones too."""
    to_mine, to_theirs = _matches(base, mine), _matches(base, theirs)
    b = m = t = 0
    for at in range(len(base)):
        if at in to_mine and at in to_theirs:
            i, j = to_mine[at], to_theirs[at]
            if (b, m, t) != (at, i, j):
                yield mine[m:i], base[b:at], theirs[t:j]
            yield [mine[i]], [base[at]], [theirs[j]]
            b, m, t = at + 1, i + 1, j + 1
    yield mine[m:], base[b:], theirs[t:]


def _matches(old: list[str], new: list[str]) -> dict[int, int]:
    """Which line of `old` is which of `new`."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    same = {at: at for at in range(start)}
    same |= {len(old) - 1 - at: len(new) - 1 - at for at in range(end)}
    middle = SequenceMatcher(None, old[start : len(old) - end], new[start : len(new) - end], autojunk=False)
    for block in middle.get_matching_blocks():
        same |= {start + block.a + at: start + block.b + at for at in range(block.size)}
    return same
