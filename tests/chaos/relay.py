"""A phase for chaos: passes chains of tasks on from phase to phase, and keeps a witness of everything it says.

Copied into a workspace as its `relay.py`. The loop, the mailbox and the emitter are the real ones; what is done in a
cycle is ours. Each hop emits findings (a line in the witness before and after each), and runs an agent with a child in
a session of its own and a daemon, whose pids are on file before the work goes on: whoever comes next looks for them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from pathlib import Path

import anyio

from actors.own import Context, Draft, Outcome, PhaseActor, Task
from docs_store.messages import Kind
from ipc import process

PHASES = ("planning", "developer", "qa", "debugging")
KINDS: dict[tuple[str, str], Kind] = {  # one that says no more than "this is yours now"
    ("planning", "developer"): "Implement",
    ("planning", "qa"): "Review",
    ("planning", "debugging"): "Issue",
    ("developer", "planning"): "Implemented",
    ("developer", "qa"): "Review",
    ("developer", "debugging"): "Issue",
    ("qa", "planning"): "Issue",
    ("qa", "developer"): "Issue",
    ("qa", "debugging"): "Issue",
    ("debugging", "planning"): "Fixed",
    ("debugging", "developer"): "Issue",
    ("debugging", "qa"): "Verify",
}
HOP = re.compile(r"chain (\S+), hop (\d+) of (\d+)")
FINDINGS = 4  # of each hop
AGENT = """
import os, subprocess, sys, time
quiet = subprocess.DEVNULL
nap = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
stray = subprocess.Popen(nap, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)
started = [stray.pid]
if sys.platform == "linux":  # a daemon: two forks, a session and no environment of ours
    said, saying = os.pipe()
    if (first := os.fork()) == 0:
        os.setsid()
        if second := os.fork():
            os.write(saying, b"%d" % second)
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.execve(nap[0], nap, {})
    os.waitpid(first, 0)
    started.append(int(os.read(said, 20)))
print(*started, flush=True)
sys.stdin.read(1)
time.sleep(float(sys.argv[1]))
for pid in started:
    os.kill(pid, 9)
stray.wait()
"""


def text_of(chain: str, hop: int, hops: int) -> str:
    """What a task of that chain says."""
    return f"chain {chain}, hop {hop} of {hops}"


def first_phase(chain: str) -> str:
    """Who gets a chain's first task."""
    return PHASES[zlib.crc32(chain.encode()) % len(PHASES)]


def next_phase(chain: str, hop: int, phase: str) -> str:
    """Who gets the task after `hop`."""
    others = [other for other in PHASES if other != phase]
    return others[zlib.crc32(f"{chain} {hop}".encode()) % len(others)]


class Relay(PhaseActor):
    """What `actor = "relay:Relay"` names, for all four phases; `options.witnesses` is where the witnesses are."""

    async def perform(self, task: Task, context: Context) -> Outcome:
        found = HOP.search(task.message.text)
        if found is None:
            return Outcome(result="done", detail="looked")
        chain, hop, hops = found[1], int(found[2]), int(found[3])
        folder = Path(context.options["witnesses"])
        look_for_the_last_one(folder, context.phase)
        path = folder / f"witness-{context.phase}-{context.epoch}"
        witness = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for number in range(FINDINGS):
                name = [chain, hop, task.attempt, number]
                _tell(witness, "before", name)
                context.say("relaying", 10 * number, "", type="finding", summary={"name": name})
                _tell(witness, "after", name)
                context.say("reading", 10 * number, f"{number}")
                if number == 0:
                    await have_it_done(folder, chain, hop, context.phase)
        finally:
            os.close(witness)
        if hop + 1 == hops:
            return Outcome(result="done", detail=f"the end of chain {chain}")
        to = next_phase(chain, hop, context.phase)
        draft = Draft(to=to, kind=KINDS[context.phase, to], text=text_of(chain, hop + 1, hops))
        return Outcome(result="done", detail=f"hop {hop} of chain {chain}", posts=(draft,))


async def have_it_done(folder: Path, chain: str, hop: int, phase: str) -> None:
    """Run an agent to its end; one that somebody kills is started again."""
    seconds = zlib.crc32(f"{hop} {chain}".encode()) % 100 / 500
    code = -1
    while code != 0:
        agent = await process.spawn(
            [sys.executable, "-I", "-S", "-c", AGENT, str(seconds)],
            stdin=process.PIPE,
            stdout=process.PIPE,
            session=False,
            adopting=True,
        )
        async with agent:
            assert agent.stdin is not None
            assert agent.stdout is not None
            try:
                pids = [int(pid) for pid in (await agent.stdout.receive()).split()]
                known = [agent.identity, *filter(None, map(process.identify, pids))]
                draft = folder / f"agents-{phase}.new"
                draft.write_text(json.dumps([[os.getpid(), one.pid, one.created] for one in known]), encoding="utf-8")
                draft.replace(folder / f"agents-{phase}")
                with (folder / "started").open("a", encoding="utf-8") as file:
                    file.write("".join(f"{os.getpid()} {one.pid} {one.created}\n" for one in known))
                await agent.stdin.send(b"g")
            except (ValueError, anyio.EndOfStream, anyio.BrokenResourceError):
                continue  # it was killed before it could say or hear anything
            code = await agent.wait()


def look_for_the_last_one(folder: Path, phase: str) -> None:
    """Whatever the last attempt had started must be gone by now."""
    left = folder / f"agents-{phase}"
    if left.exists():
        for worker, pid, created in json.loads(left.read_text(encoding="utf-8")):
            if process.is_alive(process.Identity(pid, created)):
                with (folder / "overlaps").open("a", encoding="utf-8") as file:
                    file.write(f"{worker} had started process {pid} for {phase}, which still lives\n")
        left.unlink()


def _tell(witness: int, when: str, name: list[str | int]) -> None:
    os.write(witness, (json.dumps([when, *name]) + "\n").encode())
