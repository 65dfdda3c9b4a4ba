"""Who is told of what begins to wait: each thing once, by a real command and a real webhook."""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from actors.environment import environment
from docs_store.messages import SUPERVISOR, Draft, Outcome, State
from docs_store.store import Store
from supervisor import notifications as module
from supervisor.child import worker_command
from supervisor.config import NotifyConfig
from supervisor.notifications import MOST_AT_ONCE, Notice, begun, keep_telling, notices, tell
from supervisor.status import CrewStatus, PhaseStatus

T = TypeVar("T")
NOTICE = Notice(key="a.0", said={"what": "blocked", "text": "Is the bound inclusive? ✓"})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def block(store: Store, epoch: int, text: str) -> str:
    id_ = store.post(SUPERVISOR, Draft(to="qa", kind="Review", text=text)).id
    store.start_epoch("qa", epoch, died=False)
    task = store.claim("qa", epoch)
    assert task is not None
    store.finish("qa", epoch, task, Outcome(result="blocked", detail="what now?"))
    return id_


def shown(**phases: PhaseStatus) -> CrewStatus:
    return CrewStatus(workspace="/w", pid=1, phases=phases)


def test_what_waits_and_who_was_given_up(tmp_path: Path) -> None:
    """With the workspace's name, so that one command can serve several."""
    store = Store.open(tmp_path)
    id_ = block(store, 1, "look at this")
    given_up = PhaseStatus(title="QA", state="quarantined", epoch=7, detail="it kept failing")
    found = notices(shown(qa=given_up), store.state)
    assert [(n.said["what"], n.said["workspace"]) for n in found.values()] == [("blocked", "/w"), ("given up", "/w")]
    assert next(iter(found.values())).said["id"] == id_


def test_blocked_again_after_an_answer_is_a_new_thing(tmp_path: Path) -> None:
    """The same message, another round."""
    store = Store.open(tmp_path)
    id_ = block(store, 1, "look at this")
    first = notices(shown(), store.state)
    store.answer(id_, "go on")
    assert notices(shown(), store.state) == {}
    task = store.claim("qa", 1)
    assert task is not None
    store.finish("qa", 1, task, Outcome(result="blocked", detail="and now?"))
    assert len(begun(first, notices(shown(), store.state))) == 1


def test_only_what_begins_is_told_and_a_flood_is_cut() -> None:
    """The last one says how much was left out."""
    many = {str(n): Notice(key=str(n), said={"n": n}) for n in range(MOST_AT_ONCE + 5)}
    assert begun(many, many) == ()
    assert [notice.key for notice in begun({"0": many["0"]}, dict(list(many.items())[:3]))] == ["1", "2"]
    cut = begun({}, many)
    assert len(cut) == MOST_AT_ONCE
    assert cut[-1].said["more"] == 5


@pytest.mark.anyio
async def test_a_command_gets_the_notice_on_its_input(tmp_path: Path) -> None:
    """As JSON, in the workspace's folder; what it exits with is on record."""
    code = "import sys; open('got', 'wb').write(sys.stdin.buffer.read()); sys.exit(int(sys.argv[1]))"
    told: list[str] = []
    for exit_code in ("0", "3"):
        config = NotifyConfig(command=(sys.executable, "-c", code, exit_code))
        await tell(config, NOTICE, lambda _step, text: told.append(text), folder=tmp_path, marks={})
        assert json.loads((tmp_path / "got").read_bytes()) == NOTICE.said
    assert len(told) == 1
    assert "code 3" in told[0]


@pytest.mark.anyio
async def test_a_command_sees_what_a_tool_may_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token of the environment, but the marks that find it; a key of its own is in a file that it is told of."""
    monkeypatch.setenv("SHOP_API_KEY", "hidden")
    (tmp_path / "key").write_text("its own")
    code = (
        "import json, os, sys; from pathlib import Path;"
        "Path('got').write_text(json.dumps([dict(os.environ), Path(sys.argv[1]).read_text()]))"
    )
    told: list[str] = []
    config = NotifyConfig(command=(sys.executable, "-c", code, str(tmp_path / "key")))
    await tell(config, NOTICE, lambda _step, text: told.append(text), folder=tmp_path, marks={"SHOP_MARK": "here"})
    environ, key = json.loads((tmp_path / "got").read_text(encoding="utf-8"))
    assert (told, key) == ([], "its own")
    assert "SHOP_API_KEY" not in environ
    assert environ["SHOP_MARK"] == "here"
    assert environ["PATH"] == os.environ["PATH"]


@pytest.mark.anyio
async def test_a_command_finds_the_service_s_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was agreed to, and may need a key to tell anybody; the project's tests are started without that variable."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    code = "import os; open('got', 'w').write(os.environ['CREDENTIALS_DIRECTORY'])"
    told: list[str] = []
    config = NotifyConfig(command=(sys.executable, "-c", code))
    await tell(config, NOTICE, lambda _step, text: told.append(text), folder=tmp_path, marks={})
    assert ((tmp_path / "got").read_text(encoding="utf-8"), told) == ("/run/credentials/x", [])
    assert worker_command()[1]["CREDENTIALS_DIRECTORY"] == "/run/credentials/x"  # an actor of one's own
    assert "CREDENTIALS_DIRECTORY" not in environment(os.environ)


@pytest.mark.anyio
async def test_a_command_that_hangs_or_is_missing_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is ended."""
    monkeypatch.setattr(module, "COMMAND_LIMIT", 0.5)
    told: list[str] = []
    for command in ((sys.executable, "-c", "import time; time.sleep(60)"), ("no-such-command-anywhere",)):
        await tell(
            NotifyConfig(command=command), NOTICE, lambda _step, text: told.append(text), folder=tmp_path, marks={}
        )
    assert "0.5 s" in told[0]
    assert "no-such-command-anywhere" in told[1]


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any]]]:
    """A webhook's address, and what came to it; a path /fail is answered with 500."""
    got: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/fail" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", got
        server.shutdown()


@pytest.mark.anyio
async def test_a_webhook_gets_it_by_post(hook: tuple[str, list[Any]], tmp_path: Path) -> None:
    """A refusal, and nobody there, are on record."""
    address, got = hook
    told: list[str] = []
    for target in (address, f"{address}/fail", "http://127.0.0.1:9"):
        await tell(
            NotifyConfig(webhook=target), NOTICE, lambda _step, text: told.append(text), folder=tmp_path, marks={}
        )
    assert got == [NOTICE.said, NOTICE.said]
    assert len(told) == 2
    assert "500" in told[0]


class FakeCrew:
    """A status, and a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def moved(self) -> tuple[object, ...]:
        return (self.store.head,)

    def status(self) -> CrewStatus:
        return CrewStatus(workspace="/w", pid=1, head=self.store.head)

    async def at_desk(self, work: Callable[[], T]) -> T:
        return work()


@pytest.mark.anyio
async def test_what_waited_at_the_start_is_old_and_what_comes_is_told_once(
    hook: tuple[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the history moves afterwards."""
    monkeypatch.setattr(module, "LOOK_EVERY", 0.02)
    address, got = hook
    store = Store.open(tmp_path)
    block(store, 1, "old")
    looked = anyio.Event()

    def read() -> State:
        looked.set()
        return store.state

    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: keep_telling(
                FakeCrew(store),
                read,
                lambda: NotifyConfig(webhook=address),
                lambda *_: None,
                folder=tmp_path,
                marks={},
                ended=anyio.Event(),
            )
        )
        await looked.wait()
        new = block(store, 2, "new")
        with anyio.fail_after(10):
            while not got:  # noqa: ASYNC110 - it comes from a thread of the server's
                await anyio.sleep(0.01)
        looked = anyio.Event()
        store.post(SUPERVISOR, Draft(to="qa", kind="Review", text="something else"))
        await looked.wait()
        group.cancel_scope.cancel()
    assert [said["id"] for said in got] == [new]


@pytest.mark.anyio
async def test_what_begins_to_wait_as_the_run_ends_is_told_before_it_is_over(
    hook: tuple[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs end because something waits: the last look comes after the end, and not at the next tick."""
    monkeypatch.setattr(module, "LOOK_EVERY", 3600.0)
    address, got = hook
    store, looked, ended = Store.open(tmp_path), anyio.Event(), anyio.Event()

    def read() -> State:
        looked.set()
        return store.state

    config = NotifyConfig(webhook=address)
    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: keep_telling(
                FakeCrew(store), read, lambda: config, lambda *_: None, folder=tmp_path, marks={}, ended=ended
            )
        )
        await looked.wait()
        last = block(store, 1, "last")
        ended.set()
    assert [said["id"] for said in got] == [last]
