"""Running crews under chaos: real supervisors on real workspaces, given work all the time, and hurt by a plan.

The plan (what happens to whom, and when) follows from the seed alone; what the processes make of it does not, which is
the point. What was done is kept as lines. Whether all came out right in the end is `account`'s to say.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from docs_store.messages import UNFINISHED, Draft
from docs_store.store import Store
from docs_store.topology import DEFAULT
from ipc.process import Identity, escapees, identify, is_alive
from supervisor.exits import Exit
from supervisor.status import load_status
from supervisor.workspace import Workspace
from tests.chaos.relay import KINDS, PHASES, first_phase, text_of

LIMIT = 180.0  # seconds for a crew to come to its end on a busy machine
MOST_OPEN = 8  # chains of a crew at a time
TOGETHER = 2.0  # seconds: what a worker takes at most to end after its supervisor
PAUSE = 1.6  # seconds between two blows at a crew, on average: fewer deaths a minute than a crew is given up for
MARK = "CHAOS_OF"  # in the environment of all that a crew starts
ROLES = (*PHASES, "spare", "agent", "supervisor")

CONFIG = """
[restart]
restarts = 1000
first_delay = 0.05
longest_delay = 0.2
stable_after = 0.5
deaths = 100
"""
PHASE = """
[phases.{phase}]
actor = "relay:Relay"
options = {{witnesses = '{folder}'}}
"""

What = Literal["kill", "end", "stop", "hang up"]
NAMES: Mapping[What, str] = {"kill": "SIGKILL", "end": "SIGTERM", "stop": "SIGSTOP", "hang up": "SIGHUP"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """One thing that happens: after `pause` seconds, to that role of that crew; a stop lasts `length` seconds."""

    pause: float
    what: What
    crew: int
    role: str
    length: float = 0.0


def plan(seed: int, crews: int) -> Iterator[Blow]:
    """The same blows for the same seed, for ever."""
    chance = random.Random(seed)
    weights = (4, 4, 4, 4, 2, 6, 4)
    while True:
        role = chance.choices(ROLES, weights)[0]
        what: What = chance.choices(("kill", "stop", "end"), (9, 7, 1))[0]
        if role == "supervisor" and what == "end" and chance.random() < 0.5:
            what = "hang up"
        yield Blow(
            pause=chance.choices((chance.expovariate(crews / PAUSE), 0.0), (4, 1))[0],  # some come all at once
            what=what,
            crew=chance.randrange(crews),
            role=role,
            length=chance.choice((0.05, 0.3, 1.0, 2.5, 5.0)) if what == "stop" else 0.0,
        )


@dataclass
class ChaosCrew:
    """One workspace, its supervisor and what was asked of it: chain → hops."""

    root: Path
    log: Callable[[str], None]
    program: Sequence[str] = ("-m", "supervisor")
    chains: dict[str, int] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)
    process: subprocess.Popen[bytes] | None = None
    fallen: list[tuple[float, str, int]] = field(default_factory=list)  # when who was killed

    def __post_init__(self) -> None:
        self.name = self.root.name
        self.workspace = Workspace(self.root)
        self.witnesses = self.root.with_name(f"{self.name}-witnesses")
        self.output = self.root.with_name(f"{self.name}.out")
        state = self.root.with_name(f"{self.name}-home")
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("QUEUE_IPC_", "PHASE_SUPERVISOR_"))},
            MARK: str(self.root),
            "XDG_STATE_HOME": str(state),
            "XDG_RUNTIME_DIR": str(state),
        }
        state.mkdir(parents=True, mode=0o700)
        self.witnesses.mkdir()
        self.root.mkdir()
        shutil.copy(Path(__file__).with_name("relay.py"), self.root / "relay.py")
        self.say("init")
        config = CONFIG + "".join(PHASE.format(phase=phase, folder=self.witnesses) for phase in PHASES)
        (self.root / "supervisor.toml").write_text(config, encoding="utf-8")
        self.say("trust")
        self.store = Store.open(self.workspace.crew, head_file=self.workspace.head, create=False, deadline=60.0)

    # -- the supervisor

    def say(self, *words: str) -> str:
        """A command that must succeed; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", *words],
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"supervisor {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *words: str) -> None:
        """Start the supervisor, also while what its predecessor left still lives."""
        with self.output.open("a") as out:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "run", "--quiet", *words],
                cwd=self.root,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.log(f"{self.name}: supervisor started as {self.process.pid}")

    def keep_running(self) -> None:
        """A supervisor that has ended is started again."""
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            self.codes[self.process.returncode] += 1
            self.log(f"{self.name}: supervisor {self.process.pid} ended with {self.process.returncode}")
        self.start()

    def finish(self) -> int:
        """End the chaos: an orderly stop, then a run until idle; its exit code."""
        self.keep_running()
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(LIMIT)
        self.codes[code] += 1
        self.log(f"{self.name}: supervisor {self.process.pid} was asked to end, and did with {code}")
        left = self.living() if code == Exit.INTERRUPTED else []  # it may have had no time to hear the request
        self.start("--until-idle")
        try:
            code = self.process.wait(LIMIT + self.backlog())
        except subprocess.TimeoutExpired:
            self.log(f"{self.name}: the last run does not end")
            code = -1
        if left:
            self.log(f"{self.name}: left after an orderly stop: {left}")
            raise AssertionError(f"left after an orderly stop: {left}")
        return code

    def backlog(self) -> int:
        return sum(message.status in UNFINISHED for message in self.store.refresh().messages.values())

    def close(self) -> None:
        """However it went, nothing stays."""
        deadline = time.monotonic() + 10
        while (left := escapees({MARK: str(self.root)})) and time.monotonic() < deadline:
            for identity in left:
                with suppress(ProcessLookupError):
                    os.kill(identity.pid, signal.SIGKILL)
            if self.process is not None:
                self.process.poll()
            time.sleep(0.05)
        if self.process is not None:
            self.process.wait()

    # -- who is there

    def living(self) -> list[str]:
        """Every process of this crew, in words."""
        found = []
        for identity in escapees({MARK: str(self.root)}):
            with suppress(psutil.Error):
                command = psutil.Process(identity.pid).cmdline()
                found.append(f"{identity.pid} {' '.join(command)[:120]}")
        return found

    def victims(self, role: str) -> list[Identity]:
        """Who plays that role now."""
        if role == "supervisor":
            pid = self.process.pid if self.process is not None and self.process.poll() is None else 0
            found = identify(pid) if pid else None
            return [found] if found is not None else []
        members = {identity.pid: identity for identity in escapees({MARK: str(self.root)})}
        workers, agents = [], []
        for pid, identity in members.items():
            with suppress(psutil.Error):
                command = psutil.Process(pid).cmdline()
                if "actors.worker" in command:
                    workers.append(identity)
                elif "-S" in command:
                    agents.append(identity)
        if role == "agent":
            return agents
        status = load_status(self.workspace)
        seated = {key: phase.pid for key, phase in status.phases.items()} if status is not None else {}
        if role == "spare":
            return [one for one in workers if one.pid not in seated.values()]
        return [one for one in workers if one.pid == seated.get(role)]

    def died_together(self) -> set[int]:
        """Workers that were killed at about the same time as their supervisor."""
        ends = [when for when, role, _ in self.fallen if role == "supervisor"]
        return {pid for when, role, pid in self.fallen if any(abs(when - end) < TOGETHER for end in ends)}

    # -- work

    def give(self, chance: random.Random) -> None:
        """One more chain, unless there is enough to do: posted as a program would, or written by hand."""
        if self.backlog() >= MOST_OPEN:
            return
        chain = f"{self.name}{len(self.chains)}"
        hops = chance.randrange(2, 12)
        to = first_phase(chain)
        text = text_of(chain, 0, hops)
        self.chains[chain] = hops
        if chance.random() < 0.3:
            self.by_hand(to, f"- [ ] Implement: {text} (from User)\n", in_place=chance.random() < 0.5)
            self.log(f"{self.name}: chain {chain} of {hops} written into {to}'s document")
        else:
            sender = next(key for key in KINDS if key[1] == to)
            self.store.post("user", Draft(to=to, kind=KINDS[sender], text=text), id=f"begin.{chain}")
            self.log(f"{self.name}: chain {chain} of {hops} posted to {to}")

    def by_hand(self, phase: str, line: str, *, in_place: bool) -> None:
        """As an editor does it: read, add a line below the heading, save."""
        path = self.workspace.crew / DEFAULT.read_document(phase).file
        for _ in range(200):  # for a moment there is no file where names cannot be exchanged
            with suppress(FileNotFoundError):
                before = path.read_text(encoding="utf-8")
                head, mark, rest = before.partition("## Priority Tasks\n")
                if mark:
                    break
            time.sleep(0.01)
        else:
            raise AssertionError(f"{path} has no tasks' heading")
        after = head + mark + "\n" + line + rest.removeprefix("\n")
        if in_place:
            path.write_text(after, encoding="utf-8")
        else:
            draft = path.with_name(f".{path.name}.edited")
            draft.write_text(after, encoding="utf-8")
            draft.replace(path)


class Chaos:
    """Several crews and one plan."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        crews: int = 2,
        blows: Iterator[Blow] | None = None,
        program: Sequence[str] = ("-m", "supervisor"),
        show: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.seed = seed
        self.started = time.monotonic()
        self.lines: list[str] = []
        self.blows: Counter[str] = Counter()
        self._plan = plan(seed, crews) if blows is None else blows
        self._show = show
        self._file = folder / "chaos.log"
        self._asleep: list[tuple[float, Identity]] = []
        self.crews = [ChaosCrew(folder / name, self.log, program) for name in "abcdefgh"[:crews]]

    def log(self, line: str) -> None:
        said = f"{time.monotonic() - self.started:8.2f}  {line}"
        self.lines.append(said)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(said + "\n")
        self._show(said)

    def run(self, seconds: float) -> Mapping[str, int]:
        """Work and blows for that long, then peace; the exit code of each crew's last run."""
        chance = random.Random(f"work {self.seed}")
        end = time.monotonic() + seconds
        blow = next(self._plan)
        due = time.monotonic() + 1.0 + blow.pause
        for crew in self.crews:
            crew.start()
        while (now := time.monotonic()) < end:
            self._wake(now)
            for crew in self.crews:
                crew.keep_running()
                crew.give(chance)
            if now >= due:
                self.strike(blow)
                blow = next(self._plan)
                due = now + blow.pause
            time.sleep(0.05)
        self._wake(float("inf"))
        return {crew.name: crew.finish() for crew in self.crews}

    def strike(self, blow: Blow) -> None:
        """Do it, if there is somebody in that role."""
        crew = self.crews[blow.crew]
        found = crew.victims(blow.role)
        if not found:
            self.log(f"{crew.name}: {blow.what} {blow.role}: nobody there")
            return
        victim = found[0]  # of several agents the oldest
        with suppress(ProcessLookupError):
            if is_alive(victim):
                os.kill(victim.pid, getattr(signal, NAMES[blow.what]))
                self.blows[f"{blow.what} {blow.role}"] += 1
        if blow.what in ("kill", "end"):
            crew.fallen.append((time.monotonic(), blow.role, victim.pid))
        if blow.what == "stop":
            self._asleep.append((time.monotonic() + blow.length, victim))
        length = f" for {blow.length:g} s" if blow.length else ""
        self.log(f"{crew.name}: {blow.what} {blow.role} {victim.pid}{length}")

    def _wake(self, now: float) -> None:
        for due, victim in [one for one in self._asleep if one[0] <= now]:
            self._asleep.remove((due, victim))
            with suppress(ProcessLookupError):
                if is_alive(victim):
                    os.kill(victim.pid, signal.SIGCONT)

    def close(self) -> None:
        self._wake(float("inf"))
        for crew in self.crews:
            crew.close()
