"""The document store with few and with many messages, beside what people would pick instead, in the same run."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from docs_store import Draft, Store
from docs_store import history as history_module
from docs_store.messages import Edit, Effect

FEW, MANY = 100, 100_000
LEFT_OPEN = 10  # of 500 messages
LINE = "Issue: the parser takes a list for a string in the third argument of `load` (from QA)\n"


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk that the tests use, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="docs-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def post(store: Store, number: int) -> str:
    draft = Draft(to="debugging", kind="Issue", text=f"{number}: the parser takes a list for a string in `load`")
    return store.post("user", draft).id


def filled(path: Path, count: int) -> Store:
    """A store of so many messages, most of them ticked; nobody pulls the plug while it is made."""
    path.mkdir()
    store = Store.open(path / "crew", head_file=path / "head")
    with patch.object(history_module, "sync", lambda _fd: None):
        fresh: list[str] = []
        for number in range(count):
            fresh.append(post(store, number))
            if len(fresh) == 500:
                ticks = tuple(Effect(what="tick", id=id) for id in fresh[LEFT_OPEN:])  # noqa: A001
                edit = Edit(document="DEBUG_READ", rev=None, effects=ticks)
                store.import_edit("DEBUG_READ", lambda _, edit=edit: edit)  # type: ignore[misc]
                fresh = []
    return store


def seconds_each(act: Callable[[int], object], count: int) -> float:
    began = time.perf_counter()
    for number in range(count):
        act(number)
    return (time.perf_counter() - began) / count


def median_ms(act: Callable[[], object], times: int) -> float:
    def timed() -> float:
        began = time.perf_counter()
        act()
        return (time.perf_counter() - began) * 1e3

    return statistics.median(timed() for _ in range(times))


def posting(scale: float) -> dict[str, float]:
    """Durable posts, one by one and in turn, then opening, claiming and rendering, with few and with many messages."""
    results: dict[str, float] = {}
    sizes = {"1e2": FEW} | ({"1e5": MANY} if scale >= 1 else {})  # with less the name would promise too much
    with folder() as path:
        stores = {name: filled(path / name, count) for name, count in sizes.items()}
        times: dict[str, list[float]] = {name: [] for name in sizes}
        for number in range(1000):
            for name, store in stores.items():
                began = time.perf_counter()
                post(store, number)
                times[name].append(time.perf_counter() - began)
        for name, store in stores.items():
            results[f"docs.post_us_at_{name}"] = statistics.median(times[name]) * 1e6
            results[f"docs.post_per_s_at_{name}"] = len(times[name]) / sum(times[name])
            results |= _looking(name, store)
    results["docs.post_per_s"] = results["docs.post_per_s_at_1e2"]
    return results


def _looking(name: str, store: Store) -> dict[str, float]:
    store.start_epoch("debugging", 1, died=False)
    again = Store.open(store.folder)
    return {
        f"docs.open_ms_at_{name}": median_ms(lambda: Store.open(store.folder), 9),
        f"docs.render_ms_at_{name}": median_ms(lambda: again.text("DEBUG_READ"), 9),
        f"docs.claim_us_at_{name}": median_ms(lambda: again.claim("debugging", 1), 1) * 1e3,
    }


def replacing(scale: float) -> dict[str, float]:
    """The usual way to write a document: a temp file, synced, renamed over it. Keeps one version, merges nothing."""
    with folder() as path:
        target, temp = path / "QA_READ.md", path / "QA_READ.md.tmp"
        text = (LINE * 50).encode()

        def replace(_: int) -> None:
            with temp.open("wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(target)

        return {"peer.fsync_replace.per_s": 1 / seconds_each(replace, max(50, int(1000 * scale)))}


def committing(scale: float) -> dict[str, float]:
    """The other usual way: the document in a git repository, a commit for each line."""
    git = shutil.which("git")
    if git is None:
        return {}
    with folder() as path:
        command = [git, "-C", str(path), "-c", "user.name=qa", "-c", "user.email=qa@localhost"]
        subprocess.run([*command, "init", "-q"], check=True)

        def commit(number: int) -> None:
            with (path / "QA_READ.md").open("a") as file:
                file.write(LINE)
            subprocess.run([*command, "add", "QA_READ.md"], check=True)
            subprocess.run([*command, "commit", "-q", "-m", f"line {number}"], check=True)

        return {"peer.git_commit.per_s": 1 / seconds_each(commit, max(10, int(60 * scale)))}


BENCHMARKS: dict[str, Callable[[float], dict[str, float]]] = {
    "docs.posting": posting,
    "docs.peer.replace": replacing,
    "docs.peer.git": committing,
}
