"""The parts of a worker's process, looked at in this one; tests/supervisor/test_child.py shows its whole life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from actors import worker
from actors.own import ActorError
from actors.worker import Channel, Prepared, Reports, StartError, Wires, find_actor, wait_for_assignment
from docs_store.store import Store
from ipc import control, memory
from ipc.spool import create_folder
from supervisor.child import worker_command

ASSIGNMENT = control.Assignment(
    phase="qa", epoch=1, nonce="n", workspace=".", crew=".", state=".", spool=".", log="log", beat_every=0.01
)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    readable, writable = os.pipe()
    yield readable, writable
    for descriptor in (readable, writable):
        with contextlib.suppress(OSError):  # some tests close them
            os.close(descriptor)


class HeardEmitter:
    """Notes what an emitter would be told."""

    mode = "queue"

    def __init__(self) -> None:
        self.told: list[Any] = []

    def ack(self, ack: control.Ack) -> None:
        self.told.append(ack)

    def redirect(self, address: str, key: str) -> None:
        self.told.append((address, key))

    def switch(self, mode: str, reason: str) -> None:
        self.told.append((mode, reason))

    def statistics(self) -> Any:
        return SimpleNamespace(counts=dict)


def read_lines(descriptor: int, until: bytes) -> list[control.AnyUp]:
    data = b""
    while until not in data:
        data += os.read(descriptor, 65536)
    return [control.decode_up(line) for line in data.splitlines()]


def fill(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"\n" * 65536)
    except BlockingIOError:
        os.set_blocking(descriptor, True)


@pytest.mark.only_on("posix", reason="non-blocking pipes")
def test_a_report_is_written_at_once_where_there_is_room(pipe: tuple[int, int]) -> None:
    """The writing thread, which is held up here, is not needed for it."""
    readable, writable = pipe
    os.set_blocking(readable, False)
    reports = Reports(writable)
    with reports._changed:
        reports.put(control.Ready(pid=1, epoch=2))
        assert control.decode_up(os.read(readable, 65536)) == control.Ready(pid=1, epoch=2)
    reports.close(5)


@pytest.mark.only_on("posix", reason="non-blocking pipes")
def test_a_report_never_overtakes_one_that_is_being_written(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is too long to be written at once is the thread's; the next one waits for it, although there is room."""
    readable, writable = pipe
    reports = Reports(writable)
    write, taken, may_write = os.write, threading.Event(), threading.Event()

    def held(descriptor: int, data: bytes) -> int:
        if threading.current_thread() is reports._thread:
            taken.set()
            may_write.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", held)
    long = control.Trouble(what="first", text="x" * 5000)
    reports.put(long)
    assert taken.wait(10)
    reports.put(control.Trouble(what="second", text=""))
    may_write.set()
    assert read_lines(readable, b'"second"') == [long, control.Trouble(what="second", text="")]
    reports.close(5)


@pytest.mark.only_on("posix", reason="non-blocking pipes")
def test_reports_never_wait_and_stay_few(pipe: tuple[int, int]) -> None:
    """While nobody reads, only the latest beat and idle wait; claims and results all do, in order."""
    readable, writable = pipe
    fill(writable)
    reports = Reports(writable)
    begin = time.monotonic()
    reports.put(control.Trouble(what="first", text=""))  # the thread takes it, and is stuck with it
    for number in range(2000):
        reports.put(control.Beat(lag=number))
        reports.put(control.Idle(head=number))
        if number % 1000 == 0:
            reports.put(control.Claimed(task=str(number), attempt=1, text=""))
    assert time.monotonic() - begin < 10
    reports.put(control.Trouble(what="last", text=""))
    data = b""
    while b'"last"' not in data:
        data += os.read(readable, 1 << 20)
    messages = [control.decode_up(line) for line in data.splitlines() if line]
    kinds = [type(message).__name__ for message in messages]
    assert kinds.count("Claimed") == 2
    assert kinds.count("Beat") <= 2
    assert kinds.count("Idle") <= 2
    assert control.Idle(head=1999) in messages
    reports.close(5)


def test_pulses_come_only_while_beats_do_not(pipe: tuple[int, int]) -> None:
    """The other thread speaks when the loop is silent, and says where the main thread is."""
    readable, writable = pipe
    reports = Reports(writable)
    reports.pulse_unless_beating(0.02)
    pulses = read_lines(readable, b'"pulse"')
    assert isinstance(pulses[0], control.Pulse)
    assert "test_worker.py" in pulses[0].where
    assert pulses[0].blocked >= 0.02
    reports.close(5)


def test_a_closed_pipe_ends_the_writer_quietly(pipe: tuple[int, int]) -> None:
    """Reports that nobody can read any more are nobody's trouble."""
    readable, writable = pipe
    os.close(readable)
    reports = Reports(writable)
    reports.put(control.Idle(head=1))
    reports.close(5)
    assert not reports._thread.is_alive()


async def _hear(pipe: tuple[int, int], *messages: control.Down) -> tuple[list[control.AnyDown], HeardEmitter]:
    """What a channel gives its actor once all of `messages` and a Stop are there."""
    emitter = HeardEmitter()
    reports = Reports(os.dup(pipe[1]))
    channel = Channel(
        wires=Wires(pipe[0], -1, -1), reports=reports, emitter=cast("Any", emitter), assignment=ASSIGNMENT
    )
    for message in (*messages, control.Stop(grace=10)):
        channel._hear_line(control.encode(message).strip())
    channel._hear_line(b'{"t":"no such order"}')
    heard: list[control.AnyDown] = []
    async for order in channel:
        heard.append(order)
        if isinstance(order, control.Stop):
            break
    assert channel.time_left(60) <= 8
    reports.close(5)
    return heard, emitter


def test_orders_are_received_and_the_emitters_go_to_it(pipe: tuple[int, int]) -> None:
    """Of bells the last one counts, holds and turns keep their order, acks never trouble the actor."""
    ack = control.Ack(durable=3)
    heard, emitter = asyncio.run(
        _hear(
            pipe,
            control.Bell(head=1),
            control.Hold(paused=True),
            ack,
            control.Turn(number=1),
            control.Redirect(address="a", key="k"),
            control.Bell(head=2),
            control.Turn(number=2),
            control.Switch(mode="stdout", reason="rollback"),
            control.Hold(paused=False),
        )
    )
    assert heard == [
        control.Hold(paused=True),
        control.Turn(number=1),
        control.Bell(head=2),
        control.Turn(number=2),
        control.Hold(paused=False),
        control.Stop(grace=10),
    ]
    assert emitter.told == [ack, ("a", "k"), ("stdout", "rollback")]


def test_beats_carry_what_is_in_hand(pipe: tuple[int, int]) -> None:
    """A beat says task, step and how often there was a sign of progress."""

    async def beats() -> list[control.AnyUp]:
        reports = Reports(pipe[1])
        channel = Channel(
            wires=Wires(-1, -1, -1), reports=reports, emitter=cast("Any", HeardEmitter()), assignment=ASSIGNMENT
        )
        channel.working_on("t1", 40, "scanning")
        channel.working_on("t1", 40, "scanning")
        beating = asyncio.create_task(channel.beat())
        lines = await asyncio.to_thread(read_lines, pipe[0], b"\n")
        beating.cancel()
        reports.close(5)
        return lines

    beat = asyncio.run(beats())[0]
    assert isinstance(beat, control.Beat)
    assert (beat.task, beat.pct, beat.step, beat.beats, beat.mode) == ("t1", 40, "scanning", 2, "queue")


def test_an_idle_worker_beats_seldom_and_wakes_for_a_task(pipe: tuple[int, int]) -> None:
    """The beat that says that something is in hand does not wait for the next idle one; nor does the one after it."""
    calm = msgspec.structs.replace(ASSIGNMENT, beat_every=0.01, idle_every=3600.0)

    async def beats() -> list[list[control.AnyUp]]:
        reports = Reports(pipe[1])
        channel = Channel(
            wires=Wires(-1, -1, -1), reports=reports, emitter=cast("Any", HeardEmitter()), assignment=calm
        )
        beating = asyncio.create_task(channel.beat())
        idle = await asyncio.to_thread(read_lines, pipe[0], b"\n")
        channel.working_on("t1", 1, "reading")
        at_work = await asyncio.to_thread(read_lines, pipe[0], b'"beats":1')
        channel.working_on("")
        after = await asyncio.to_thread(read_lines, pipe[0], b'"beats":2')
        beating.cancel()
        reports.close(5)
        return [idle, at_work, after]

    (first, *none), at_work, after = asyncio.run(beats())
    assert isinstance(first, control.Beat)
    assert not none
    assert (first.task, first.next_in) == ("", 3600.0)
    last = at_work[-1]
    assert isinstance(last, control.Beat)
    assert (last.task, last.next_in) == ("t1", 0.01)
    assert isinstance(after[-1], control.Beat)
    assert (after[-1].task, after[-1].next_in) == ("", 3600.0)


def test_an_idle_worker_gives_memory_back_once(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while it works, nor at once when it has ended, nor with every idle beat."""
    calm = msgspec.structs.replace(ASSIGNMENT, beat_every=0.01, idle_every=0.05)
    given: list[str] = []
    channels: list[Channel] = []
    monkeypatch.setattr(memory, "give_back", lambda: given.append(channels[0]._doing[0]))

    async def beats() -> None:
        reports = Reports(pipe[1])
        channel = Channel(
            wires=Wires(-1, -1, -1), reports=reports, emitter=cast("Any", HeardEmitter()), assignment=calm
        )
        channels.append(channel)
        channel.working_on("t1", 1, "reading")
        beating = asyncio.create_task(channel.beat())
        await asyncio.to_thread(read_lines, pipe[0], b"\n")
        for _ in range(2):
            channel.working_on("")
            for _ in range(4):
                await asyncio.to_thread(read_lines, pipe[0], b'"task":""')
            channel.working_on("t2")
            await asyncio.to_thread(read_lines, pipe[0], b'"task":"t2"')
        beating.cancel()
        reports.close(5)

    asyncio.run(beats())
    assert given == ["", ""]


def test_the_assignment_may_come_in_pieces(pipe: tuple[int, int]) -> None:
    """A long assignment is read to its end, and what follows is kept for later."""
    readable, writable = pipe
    long = control.Assignment(
        phase="qa", epoch=1, nonce="n", workspace=".", crew=".", state=".", spool=".", log="l", key="k" * 300_000
    )
    data = control.encode(long) + control.encode(control.Bell(head=1))
    writer = threading.Thread(target=os.write, args=(writable, data))
    writer.start()
    assignment, rest = wait_for_assignment(readable)
    writer.join()
    assert assignment == long
    os.close(writable)
    while more := os.read(readable, 65536):
        rest += more
    assert rest == control.encode(control.Bell(head=1))


def test_a_spare_prepares_before_its_assignment(pipe: tuple[int, int]) -> None:
    """What the assignment will name is known sooner, and told to whoever opens it."""
    readable, writable = pipe
    said = control.Prepare(crew="crew", state="state")
    os.write(writable, control.encode(said) + control.encode(ASSIGNMENT) + b"rest")
    heard: list[control.Prepare] = []
    assert wait_for_assignment(readable, heard.append) == (ASSIGNMENT, b"rest")
    assert heard == [said]


def test_documents_that_cannot_be_opened_beforehand_are_nobody_s_trouble_yet(tmp_path: Path) -> None:
    """The spare lives on: the assignment may name others, and tells if it does not."""
    prepared = Prepared()
    prepared.hear(control.Prepare(crew=str(tmp_path / "none"), state=str(tmp_path)))
    assert prepared.store is None


SUCCESSOR = """
import json, os, sys
from pathlib import Path
from actors import worker
from docs_store.store import Store
from docs_store.topology import DEFAULT, as_data
from ipc import control
from ipc.spool import create_folder

folder = Path(sys.argv[1])
worker.preload()
worker.preload_drivers(lambda: False)
before = set(sys.modules)

def put(self, message):
    if isinstance(message, control.Ready):
        opened = prepared.store is not None
        (folder / "found").write_text(json.dumps([opened, sorted(set(sys.modules) - before)]))
        os._exit(0)

worker.Reports.put = put
prepared = worker.Prepared()
places = {"crew": str(folder / "crew"), "state": str(folder), "topology": as_data(DEFAULT)}
prepared.hear(control.Prepare(**places))
reader, writer = os.pipe()
assignment = control.Assignment(
    phase="qa", epoch=1, nonce="n", workspace=str(folder), spool=str(folder / "spool"), log=str(folder / "log"),
    **places
)
wires = worker.Wires(control=reader, markers=os.dup(1), reports=os.dup(2))
worker.live(wires, worker.Reports(wires.reports), assignment, b"", prepared.store)
"""


def test_nothing_is_imported_between_assignment_and_ready(tmp_path: Path) -> None:
    """A spare has all modules that a worker with a driver of ours needs to get ready."""
    store = Store.open(tmp_path / "crew", head_file=tmp_path / "head")
    store.start_epoch("qa", 1, died=False)
    create_folder(tmp_path / "spool")
    command, environ = worker_command()
    command = [*command[: command.index("-m")], "-c", SUCCESSOR, str(tmp_path)]
    subprocess.run(command, env=environ, check=True, timeout=60)
    assert json.loads((tmp_path / "found").read_text()) == [True, []]


def test_a_spare_whose_supervisor_goes_is_free(pipe: tuple[int, int]) -> None:
    """Without an assignment the end of the pipe means: not needed; so does a stop."""
    readable, writable = pipe
    os.write(writable, control.encode(control.Stop(grace=1)))
    assert wait_for_assignment(readable) == (None, b"")
    os.close(writable)
    assert wait_for_assignment(readable) == (None, b"")


def test_the_first_message_must_be_the_assignment(pipe: tuple[int, int]) -> None:
    """Anything else is a mistake of the supervisor's, and named."""
    os.write(pipe[1], control.encode(control.Bell(head=1)))
    with pytest.raises(StartError, match="must be the assignment, not Bell"):
        wait_for_assignment(pipe[0])


async def own_actor(_channel: Channel, _assignment: control.Assignment) -> None:
    """What a user may write."""


class OwnActor:
    """For the usual loop to make its object of."""


def test_actors_by_name() -> None:
    """A coroutine function by its dotted path is the loop; for a class, and for nothing, it is the usual one."""
    from actors import actor

    sys.modules["own_module"] = sys.modules[__name__]
    try:
        assert find_actor({"actor": "own_module:own_actor"}) is own_actor
        assert find_actor({"actor": "own_module:OwnActor"}) is actor.main
        assert find_actor({}) is actor.main
        with pytest.raises(ActorError, match=r"has no 'nothing'"):
            find_actor({"actor": "own_module:nothing"})
    finally:
        del sys.modules["own_module"]


def test_a_worker_imports_little() -> None:
    """What makes start-up slow and memory large is not in a worker."""
    command, environ = worker_command()
    code = "from actors import worker; worker.preload(); import sys; print(*sorted(sys.modules))"
    run = subprocess.run(
        [*command[: command.index("-m")], "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert {"actors.actor", "ipc.emitter", "structlog", "anyio"} <= loaded
    unwanted = {"rich", "typer", "pydantic", "starlette", "watchfiles", "pygit2", "psutil", "trio", "supervisor"}
    assert not loaded & unwanted


def test_a_spare_has_every_drivers_modules() -> None:
    """A successor has nothing left to import; one that is wanted at once skips what is not its own."""
    command, environ = worker_command()
    code = (
        "import sys; from actors import worker; worker.preload(); asked = iter([False, True]);"
        "worker.preload_drivers(lambda: next(asked)); before = set(sys.modules); print('|');"
        "worker.preload_drivers(lambda: False); print(*sorted(sys.modules), '|'); after = set(sys.modules);"
        "from actors.drivers.builtin import driver_for;"
        "[driver_for(phase) for phase in ('planning', 'developer', 'qa', 'debugging')];"
        "print(*sorted(set(sys.modules) - after), '|', *sorted(name for name in before if '.builtin.' in name))"
    )
    run = subprocess.run(
        [*command[: command.index("-m")], "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    _, loaded, missed, first = (part.split() for part in run.stdout.split("|"))
    assert missed == []
    assert "actors.drivers.builtin.planning" in loaded
    assert "actors.drivers.builtin.planning" not in first
    assert not set(loaded) & {"rich", "typer", "pydantic", "starlette", "pygit2", "psutil", "supervisor"}


def test_its_entry_names_are_stable() -> None:
    """The supervisor's side relies on these."""
    assert (worker.EXIT_CRASHED, worker.EXIT_START_FAILED, worker.EXIT_ORPHANED) == (1, 69, 76)


# A worker's loop waits for a tool and draws a conclusion; its supervisor goes; between the kill and the exit is time.
ORPHAN = """
import os, sys, time
from pathlib import Path
import anyio
from actors.worker import Channel, Reports, Wires
from types import SimpleNamespace
from ipc import control, process

kill = process.kill
process.kill = lambda identity: (kill(identity), time.sleep(0.5))
assignment = control.Assignment(
    phase="qa", epoch=1, nonce="n", workspace=".", crew=".", state=".", spool=".", log="log", beat_every=0.01
)

async def main():
    reports = os.open(os.devnull, os.O_WRONLY)
    wires = Wires(control=0, markers=-1, reports=reports)
    emitter = SimpleNamespace(switch=None)
    channel = Channel(wires=wires, reports=Reports(reports), emitter=emitter, assignment=assignment)
    channel.listen(b"")
    tool = await process.spawn([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    print("ready", flush=True)
    code = await tool.wait()
    Path(sys.argv[1]).write_text(f"the tool failed: {code}")

anyio.run(main)
"""


def test_a_worker_without_supervisor_draws_no_conclusion_from_what_it_kills(tmp_path: Path) -> None:
    """A tool that it ends because it is an orphan has not failed: nothing of that is put on record."""
    said = tmp_path / "said"
    child = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(said)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "ready\n"
        child.stdin.close()
        assert child.wait(30) == worker.EXIT_ORPHANED
    assert not said.exists()
