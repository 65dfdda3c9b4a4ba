"""Real workers under a real `Child`: what is heard of them, how they end, and what they leave."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from ipc import control
from ipc.process import identify, is_alive
from supervisor import child as room
from supervisor.child import AlreadyAssignedError, Child, ChildGoneError, Exited, Fact, Reported, worker_command
from tests.systems import ENDED, KILLED, SIGKILL, hold

pytestmark = pytest.mark.anyio

ACTS = """
import asyncio, ctypes, os, re, signal, subprocess, sys, time
from pathlib import Path
from ipc import control

def ready(channel, assignment):
    channel.report(control.Ready(pid=os.getpid(), epoch=assignment.epoch))

async def polite(channel, assignment):
    '''Echoes bells as idles; leaves when told to.'''
    ready(channel, assignment)
    async for order in channel:
        if isinstance(order, control.Stop):
            return
        if isinstance(order, control.Bell):
            channel.report(control.Idle(head=order.head))

async def deaf(channel, assignment):
    ready(channel, assignment)
    await asyncio.sleep(60)

async def crashes(channel, assignment):
    ready(channel, assignment)
    raise LookupError("nothing works")

class Shapeless:
    pass

async def never_ready(channel, assignment):
    raise LookupError("no such model")

async def exits(channel, assignment):
    ready(channel, assignment)
    sys.exit(5)


async def exits_well(channel, assignment):
    ready(channel, assignment)
    sys.exit(0)

async def prints(channel, assignment):
    print('{"t":"idle","head":99}', file=sys.stderr)
    os.write(2, b'{"t":"trouble","what":"crash","text":"forged"}\\n')
    print("##PROGRESS:{}", flush=True)
    subprocess.run([sys.executable, "-c", "import os; os.write(1, b'from below\\\\n'); os.write(2, b'and below\\\\n')"])
    await polite(channel, assignment)

AGENT = "import time; print('ready', flush=True); time.sleep(60)"

async def with_agents(channel, assignment):
    '''One agent in our group, one with a session of its own; their pids go up as a claim.'''
    pids = []
    for new in (False, True):
        agent = subprocess.Popen([sys.executable, "-c", AGENT], stdout=subprocess.PIPE, start_new_session=new)
        agent.stdout.readline()
        pids.append(agent.pid)
    channel.report(control.Claimed(task="1", attempt=1, text=" ".join(map(str, pids))))
    await polite(channel, assignment)

async def emits(channel, assignment):
    channel.emitter.emit("qa", "scanning", 10, "looking")
    await polite(channel, assignment)

async def blocks(channel, assignment):
    ready(channel, assignment)
    await asyncio.sleep(0.05)
    time.sleep(60)

async def holds(channel, assignment):
    ready(channel, assignment)
    await asyncio.sleep(0.05)
    ctypes.PyDLL("kernel32").Sleep(60_000) if sys.platform == "win32" else ctypes.PyDLL(None).sleep(60)

async def tells(channel, assignment):
    import ipc, actors
    facts = {"cwd": os.getcwd(), "ipc": ipc.__file__, "actors": actors.__file__, "path": sys.path,
             "environ": dict(os.environ), "last": __import__("theirs").WHO}
    Path("facts.json").write_text(__import__("json").dumps(facts))
    await polite(channel, assignment)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Owner:
    """What the crew will be: it hears facts, and can wait for one."""

    folder: Path
    facts: list[Fact] = field(default_factory=list)
    markers: list[bytes] = field(default_factory=list)
    readable: bool = True
    changed: anyio.Event = field(default_factory=anyio.Event)

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)
        self.ring()

    def marker(self, _child: Child, line: bytes) -> None:
        self.markers.append(line)
        self.ring()

    def ring(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, holds: Callable[[], Any]) -> Any:
        with anyio.fail_after(15):
            while not (found := holds()):
                await self.changed.wait()
        return found

    def said(self, kind: type[control.Up]) -> list[Any]:
        return [f.message for f in self.facts if isinstance(f, Reported) and isinstance(f.message, kind)]

    def exits(self) -> list[Exited]:
        return [f for f in self.facts if isinstance(f, Exited)]

    def assignment(self, actor: str, *, epoch: int = 1, **more: Any) -> control.Assignment:
        spool = self.folder / f"spool-{epoch}"
        spool.mkdir()
        return control.Assignment(
            phase="qa",
            epoch=epoch,
            nonce="0123456789abcdef",
            workspace=str(self.folder),
            crew=str(self.folder / "crew"),
            state=str(self.folder),
            spool=str(spool),
            log=str(self.folder / f"qa-{epoch}.log"),
            mode="stdout",
            options={"actor": f"acts:{actor}"},
            **more,
        )

    @asynccontextmanager
    async def child(self, **options: Any) -> AsyncIterator[Child]:
        child = Child(tell=self.tell, marker=self.marker, may_read=lambda _child: self.readable, **options)
        async with anyio.create_task_group() as group:
            await group.start(child.run)
            try:
                yield child
            finally:
                child.kill()
                with anyio.CancelScope(shield=True):
                    await child.end_tree()
                    await child.wait()
                child.close()


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    (tmp_path / "acts.py").write_text(ACTS, encoding="utf-8")
    return Owner(tmp_path)


async def test_a_life_in_good_order(owner: Owner) -> None:
    """Spare, ready, at work, asked to stop, gone with code 0; orders and answers in between."""
    async with owner.child() as child:
        assert await child.wait_spare()
        child.assign(owner.assignment("polite"))
        assert await child.wait_ready()
        child.send(control.Bell(head=7))
        assert (await owner.until(lambda: owner.said(control.Idle)))[0].head == 7
        await owner.until(lambda: owner.said(control.Beat))
        exited = await child.stop(grace=10)
        assert exited is not None
        assert (exited.code, exited.ready, exited.asked, exited.text) == (0, True, True, "")
        assert await child.tree_gone()
    assert isinstance(owner.facts[0], Reported)
    assert owner.exits() == [exited]
    with pytest.raises(ChildGoneError):
        child.assign(child.assignment)  # type: ignore[arg-type]


async def test_cold_start_needs_no_waiting(owner: Owner) -> None:
    """An assignment may be sent before the worker has said that it is a spare; a second one never."""
    async with owner.child() as child:
        child.assign(owner.assignment("polite"))
        with pytest.raises(AlreadyAssignedError, match="is qa in epoch 1"):
            child.assign(owner.assignment("polite", epoch=2))
        assert await child.wait_ready()


async def test_a_spare_that_is_not_needed_leaves(owner: Owner) -> None:
    """A spare understands stop."""
    async with owner.child() as child:
        await child.stop(grace=10)
        assert child.exited is not None
        assert child.exited.code == 0


async def test_a_kill_is_seen_at_once_though_agents_live(owner: Owner) -> None:
    """SIGKILL is told by the process's handle; its agents, escaped ones too, are then found and ended."""
    async with owner.child() as child:
        child.assign(owner.assignment("with_agents"))
        (claim,) = await owner.until(lambda: owner.said(control.Claimed))
        agents = [identify(int(pid)) for pid in claim.text.split()]
        os.kill(child.pid, SIGKILL)
        with anyio.fail_after(5):
            exited = await child.wait()
        assert exited.code == KILLED
        assert not exited.asked
        assert all(agent is not None and is_alive(agent) for agent in agents)
        assert not await child.tree_gone()
        assert await child.end_tree() == ()
        assert await child.tree_gone()
        assert not any(agent is not None and is_alive(agent) for agent in agents)


async def test_a_deaf_worker_is_ended(owner: Owner) -> None:
    """One that does not listen goes when its grace is over; so does a SIGSTOPped one with a full control pipe."""
    async with owner.child() as child:
        child.assign(owner.assignment("deaf"))
        assert await child.wait_ready()
        exited = await child.stop(grace=0.1)
        assert exited is not None
        assert (exited.code, exited.asked) == (ENDED, True)
    async with owner.child() as child:
        child.assign(owner.assignment("deaf", epoch=2))
        assert await child.wait_ready()
        hold(child.pid)
        for number in range(20_000):
            child.send(control.Turn(number=number))
        await anyio.lowlevel.checkpoint()
        exited = await child.stop(grace=0.1)
        assert exited is not None
        assert exited.code == ENDED


async def test_a_crash_says_why(owner: Owner) -> None:
    """An error nobody expected ends the worker with its traceback, as a crash."""
    async with owner.child() as child:
        child.assign(owner.assignment("crashes"))
        exited = await child.wait()
        assert (exited.code, exited.ready) == (1, True)
        assert exited.text.endswith("LookupError: nothing works\n")
        assert "in crashes" in exited.text
        assert "LookupError" in await child.log_tail()
        assert exited.as_exit("qa").text.startswith("qa exited with code 1 after")


async def test_last_words_are_heard_before_the_exit(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the report pipe when the exit is seen is heard first, however late the reader is."""

    async def too_late(_child: Child) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(Child, "_read_reports", too_late)
    async with owner.child() as child:
        child.assign(owner.assignment("crashes"))
        exited = await child.wait()
        assert exited.ready
        assert "nothing works" in exited.text
        assert owner.facts[-1] is exited


@pytest.mark.parametrize(
    ("actor", "text"),
    [
        ("never_ready", "LookupError: no such model"),
        ("missing", "has no 'missing'; its classes are: Shapeless"),
        ("Shapeless", "acts:Shapeless has no `async def perform(self, task, context)`"),
    ],
)
async def test_failing_to_start_is_not_a_crash(owner: Owner, actor: str, text: str) -> None:
    """An actor that never gets ready has its own exit code, and its own reason."""
    async with owner.child() as child:
        child.assign(owner.assignment(actor))
        exited = await child.wait()
        assert (exited.code, exited.ready) == (69, False)
        assert text in exited.text
        assert ("Traceback" in exited.text) == (actor == "never_ready")


@pytest.mark.parametrize(
    ("actor", "code", "words"), [("exits", 5, "SystemExit: 5"), ("exits_well", 1, "SystemExit: 0")]
)
async def test_an_exit_by_the_users_code_is_a_crash(owner: Owner, actor: str, code: int, words: str) -> None:
    """`sys.exit` somewhere below does not look like an orderly end; its code is kept where it is none of one."""
    async with owner.child() as child:
        child.assign(owner.assignment(actor))
        exited = await child.wait()
        assert exited.code == code
        assert words in exited.text


async def test_an_import_error_is_told_with_its_traceback(owner: Owner) -> None:
    """What the interpreter prints before the first acts is the reason of a start failure."""
    command, _ = worker_command()
    broken = [*command[: command.index("-m")], "-c", "print('hello'); import no_such_module"]
    async with owner.child(command=broken) as child:
        assert not await child.wait_spare()
        exited = await child.wait()
        assert (exited.code, exited.ready) == (1, False)
        assert "ModuleNotFoundError: No module named 'no_such_module'" in exited.text
        assert owner.said(control.Up) == []


async def test_a_broken_spool_is_a_start_failure(owner: Owner) -> None:
    """Without its epoch's folder a worker does not begin: the epoch may have been closed."""
    async with owner.child() as child:
        assignment = owner.assignment("polite")
        (owner.folder / "spool-1").rmdir()
        child.assign(assignment)
        exited = await child.wait()
        assert (exited.code, exited.ready) == (69, False)
        assert "spool-1" in exited.text


async def test_another_protocol_version_is_refused(owner: Owner) -> None:
    """A worker of another installation says so."""
    async with owner.child() as child:
        child.assign(owner.assignment("polite", version=99))
        exited = await child.wait()
        assert "version 99" in exited.text
        assert not exited.ready


async def test_prints_are_log_text(owner: Owner) -> None:
    """What actor, agents and tests print goes to the log, also when it looks like a report or a marker."""
    async with owner.child() as child:
        child.assign(owner.assignment("prints"))
        assert await child.wait_ready()
        await child.stop(grace=10)
        await child.drain_markers()
        log = await child.log_tail()
    assert owner.said(control.Idle) == []
    assert owner.said(control.Trouble) == []
    assert owner.markers == []
    for text in ('{"t":"idle","head":99}', "forged", "##PROGRESS:{}", "from below", "and below"):
        assert text in log


def forge(owner: Owner, *lines: bytes) -> Child:
    """A child whose report pipe carries these lines before anything else."""
    child = Child(tell=owner.tell)
    child._process = type("Stub", (), {"pid": 4711})()
    for line in lines:
        child._take_reports(line + b"\n")
    return child


async def test_reports_out_of_place_are_log_text(owner: Owner) -> None:
    """A report that this worker cannot be making now is text; another's pid or epoch is not believed."""
    lines = [
        b'{"t":"spare","pid":1}',
        b'{"t":"ready","pid":4711,"epoch":1}',
        b'{"t":"finished","task":"1","head":2,"result":"done"}',
        b'{"t":"trouble","what":"start","text":"forged"}',
        b"\xff\xfe not even text",
        b'{"t":"bell","head":1}',
    ]
    child = forge(owner, *lines)
    assert owner.facts == []
    assert child.early_text.count("\n") == len(lines) - 1
    child.assign(owner.assignment("polite"))
    child._take_reports(b'{"t":"idle","head":1}\n{"t":"spare","pid":4711}\n{"t":"ready","pid":4711,"epoch":2}\n')
    assert [type(f.message) for f in owner.facts if isinstance(f, Reported)] == [control.Spare]
    assert not child.is_ready


async def test_markers_arrive_and_can_be_held(owner: Owner) -> None:
    """The marker pipe is read when it may be; after the exit what is left is drained."""
    owner.readable = False
    async with owner.child() as child:
        child.assign(owner.assignment("emits"))
        assert await child.wait_ready()
        await owner.until(lambda: owner.said(control.Beat))
        assert owner.markers == []
        owner.readable = True
        child.recheck_markers()
        await owner.until(lambda: owner.markers)
        assert b"scanning" in owner.markers[0]
        owner.readable = False
        child.kill()
        await child.wait()
        before = len(owner.markers)
        await child.drain_markers()
        assert len(owner.markers) >= before


@pytest.mark.parametrize(("actor", "pulses"), [("blocks", True), ("holds", False)])
async def test_a_blocked_loop_pulses_and_a_held_gil_does_not(owner: Owner, actor: str, pulses: bool) -> None:  # noqa: FBT001
    """A blocked loop is told from a held GIL by the pulses, which say where the loop is."""
    async with owner.child() as child:
        child.assign(owner.assignment(actor, beat_every=0.1))
        assert await child.wait_ready()
        if pulses:
            pulse = (await owner.until(lambda: owner.said(control.Pulse)))[0]
            assert "in blocks" in pulse.where
            assert pulse.blocked >= 0.2
        else:
            await anyio.sleep(1)
            assert owner.said(control.Pulse) == []


async def test_ours_for_us_and_theirs_for_them(owner: Owner, tmp_path: Path) -> None:
    """A repository with packages named like ours gets its own way, and we ours; PYTHONPATH is given back."""
    for name in ("ipc", "actors", "supervisor", "docs_store"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('theirs was imported')")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "theirs.py").write_text("WHO = 'the user'")
    (tmp_path / "lib" / "ipc.py").write_text("raise SystemExit('theirs was imported')")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    async with owner.child(environ=environ, marks={"PHASE_SUPERVISOR_CREW": "abc"}) as child:
        child.assign(owner.assignment("tells", environ={"SECRET": "s3cret"}))
        assert await child.wait_ready()
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["cwd"] == str(tmp_path)
    assert Path(facts["ipc"]).parent.parent == Path(facts["actors"]).parent.parent == Path(room.__file__).parent.parent
    assert facts["path"][-1] == str(tmp_path)
    assert facts["environ"]["PYTHONPATH"] == str(tmp_path / "lib")
    assert facts["environ"]["SECRET"] == "s3cret"
    assert facts["environ"]["PHASE_SUPERVISOR_CREW"] == "abc"


SUPERVISOR = """
import sys, anyio
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_child
async def main():
    owner = test_child.Owner(Path(sys.argv[1]))
    async with owner.child() as child:
        child.assign(owner.assignment("with_agents"))
        (claim,) = await owner.until(lambda: owner.said(test_child.control.Claimed))
        print(child.pid, claim.text, flush=True)
        await anyio.sleep(60)
anyio.run(main)
"""


async def test_when_the_supervisor_is_killed_all_are_gone_within_two_seconds(owner: Owner, tmp_path: Path) -> None:
    """Worker and agents, the escaped one too, end when their supervisor is SIGKILLed."""
    code = textwrap.dedent(SUPERVISOR).format(tests=str(Path(__file__).parent))
    root = str(Path(room.__file__).parent.parent)
    process = await anyio.open_process(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": root}, stderr=None
    )
    async with process:
        assert process.stdout is not None
        with anyio.fail_after(40):
            text = b""
            while not text.endswith(b"\n"):
                text += await process.stdout.receive()
        pids = [int(pid) for pid in text.split()]
        identities = [identify(pid) for pid in pids]
        assert len([i for i in identities if i is not None]) == 3
        process.kill()
        await process.wait()
        with anyio.fail_after(2 if sys.platform != "win32" else 10):  # Wine takes its time
            while any(i is not None and is_alive(i) for i in identities):  # noqa: ASYNC110 - no children of ours
                await anyio.sleep(0.01)


def test_acks_and_bells_replace_what_waits(owner: Owner) -> None:
    """However slow a worker reads, what waits for it stays small; a gap is never forgotten."""
    waiting = control.Ack(durable=1, received=1, gap=1)
    assert room._merge(waiting, control.Ack(durable=5, received=6)) == control.Ack(durable=5, received=6, gap=1)
    assert room._merge(control.Bell(head=9), control.Bell(head=7)) == control.Bell(head=9)
    assert room._merge(control.Hold(paused=True), control.Hold(paused=False)) == control.Hold(paused=False)


async def test_the_outbox_stays_small(owner: Owner) -> None:
    """A million acks to a worker that does not read are one."""
    child = Child(tell=owner.tell)
    for number in range(1000):
        child.send(control.Ack(durable=number))
        child.send(control.Bell(head=number))
        child.send(control.Stop(grace=1))
    assert list(child._outbox) == [control.Ack(durable=999), control.Bell(head=999), control.Stop(grace=1)]


def test_lines_survive_any_cut() -> None:
    """However the bytes arrive, the lines are the same; an endless line is cut."""
    text = b"one\ntwo\r\n\nthree"
    for size in range(1, len(text) + 1):
        partial = bytearray()
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert [line for piece in pieces for line in room._lines(partial, piece)] == [b"one", b"two", b""]
        assert bytes(partial) == b"three"
    partial = bytearray()
    cut = room._lines(partial, b"x" * (room.MOST_LINE + 1))
    assert [len(line) for line in cut] == [room.MOST_LINE + 1]
    assert not partial


async def test_many_children_leave_nothing(owner: Owner) -> None:
    """Workers come and go without leaving a descriptor."""

    def descriptors() -> float:
        return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else math.inf

    async def one() -> None:
        async with owner.child() as child:
            await child.stop(grace=10)

    await one()
    before = descriptors()
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
    assert descriptors() == before
