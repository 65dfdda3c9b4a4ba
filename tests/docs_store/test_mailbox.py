"""The mailbox: a capability and no more; and the real store driven along the protocol's model, crashes included."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from docs_store import AsyncMailbox, Draft, Mailbox, Outcome, Store, Task
from docs_store import history as history_module
from docs_store import store as store_module
from docs_store.archive import remove
from docs_store.errors import FencedError, StoreError
from docs_store.messages import Edit, Effect, Kind, Limits, Message, Status
from docs_store.topology import DEFAULT
from docs_store.views import render, template


def load_model() -> ModuleType:
    """The protocol's model, a script of its own."""
    path = Path(__file__).parents[1] / "models" / "documents_protocol.py"
    spec = importlib.util.spec_from_file_location("documents_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODEL = load_model()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "crew")
    store.create_documents({document.name: template(document) for document in DEFAULT.documents})
    store.start_epoch("qa", 1, died=False)
    return store


def posted(store: Store, text: str = "look at it", **more: Any) -> str:
    return store.post("user", Draft(to="qa", kind="Review", text=text, **more)).id


def test_it_offers_one_phase_its_own_work_only(store: Store) -> None:
    """Nothing of the store shows through: no post, no epochs, no other phase."""
    public = {name for name, _ in inspect.getmembers(Mailbox) if not name.startswith("_")}
    assert public == {
        "claim", "finish", "head", "look", "mark_read", "message", "notes", "open_tasks", "read", "refresh",
        "refused_fixes", "reported", "revision", "thread", "tree", "unread", "waiting", "waiting_anywhere",
    }  # fmt: skip
    with pytest.raises(KeyError, match="planning"):
        Mailbox(store, "tester", 1)


def test_a_cycle(store: Store) -> None:
    """Claim, read, finish: the receiver sees the post, the reader what is new, the report what was done."""
    mailbox = Mailbox(store, "qa", 1)
    known = posted(store)
    assert [message.id for message in mailbox.open_tasks()] == [known]
    task = mailbox.claim()
    assert task is not None
    assert mailbox.open_tasks() == ()
    assert "look at it" in mailbox.read("QA_READ.md")
    result = mailbox.finish(
        task, Outcome(result="done", detail="fine", posts=(Draft(to="planning", kind="Approved", text="all good"),))
    )
    assert mailbox.head == result.n
    assert [message.text for message in mailbox.thread(task.thread)] == ["look at it", "all good"]
    assert not mailbox.reported("another")
    assert mailbox.reported(task.thread), "planning has not closed it yet"
    assert "all good" in mailbox.read("PLANNING_READ")
    assert mailbox.claim() is None


def test_text_and_revision_belong_together(store: Store) -> None:
    """What a rewrite was based on is said by the revision of the text that was read."""
    mailbox = Mailbox(store, "qa", 1)
    text, n = mailbox.look("QA_READ")
    assert f"<!-- rev:{n} " in text
    assert mailbox.revision("QA_READ") == n
    posted(store)
    assert mailbox.revision("QA_READ") == n + (store.head - n)


def test_notes_and_waiting(store: Store) -> None:
    """What is no task, and what waits for a person, can be looked up."""
    mailbox = Mailbox(store, "qa", 1)
    posted(store, "in UTC", section="requirements")
    posted(store)
    task = mailbox.claim()
    assert task is not None
    mailbox.finish(task, Outcome(result="blocked", detail="which one?"))
    assert [message.text for message in mailbox.notes()] == ["in UTC"]
    assert [message.id for message in mailbox.waiting()] == [task.id]
    assert mailbox.message(task.id) == mailbox.waiting()[0]


def test_a_superseded_mailbox_is_told(store: Store) -> None:
    """The mailbox of an older epoch raises instead of working on."""
    mailbox = Mailbox(store, "qa", 1)
    store.start_epoch("qa", 2, died=True)
    with pytest.raises(FencedError):
        mailbox.claim()


def test_unread(store: Store) -> None:
    """A phase's own cursor says what is new in another's document."""
    mailbox = Mailbox(store, "qa", 1)
    mailbox.mark_read("DEBUG_READ")
    assert not mailbox.unread("DEBUG_READ")
    store.post("user", Draft(to="debugging", kind="Issue", text="new"))
    assert [message.text for message in mailbox.unread("DEBUG_READ").messages] == ["new"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_async_face(store: Store, backend: str) -> None:
    """The same from an event loop of either kind."""
    posted(store)

    async def cycle() -> int:
        mailbox = AsyncMailbox(Mailbox(store, "qa", 1))
        task = await mailbox.claim()
        assert task is not None
        assert "look at it" in await mailbox.read("QA_READ")
        result = await mailbox.finish(task, Outcome(result="done", detail="fine"))
        await mailbox.mark_read("QA_WRITE")
        assert not await mailbox.unread("QA_WRITE")
        assert (await mailbox.look("QA_WRITE"))[1] == await mailbox.refresh() == result.n
        return result.n

    assert anyio.run(cycle, backend=backend) == store.head


# --- the real store along the model's steps ---------------------------------------------------------------------------

PHASES = ("planning", "developer")  # the model's 0 and 1
STATUS = {
    Status.OPEN: MODEL.OPEN,
    Status.CLAIMED: MODEL.HELD,
    Status.DONE: MODEL.DONE,
    Status.BLOCKED: MODEL.BLOCKED,
    Status.QUARANTINED: MODEL.QUARANTINED,
    Status.WITHDRAWN: MODEL.WITHDRAWN,
}
READ = {"planning": "PLANNING_READ", "developer": "DEVELOPER_READ"}
phases = st.sampled_from((0, 1))


class Conformance(RuleBasedStateMachine):
    """Two workers, a user and crashes on the real store; the model's functions say what the history must add up to."""

    hops = 99
    kinds: tuple[Kind, ...] = ("Issue", "Approved")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.rules = MODEL.CrewRules(most_hops=self.hops, most_deaths=2)
        self.model = MODEL.History()
        self.names: dict[str, str] = {}  # the model's id → the store's
        self.tasks: list[Task | None] = [None, None]  # what each worker remembers to be at
        self.gone: list[Task] = []  # what workers of older epochs remember
        self.done: list[tuple[Task, Outcome, Any]] = []
        self.shown: list[tuple[str, int, int, Status]] = []
        self.store = self.open()
        for phase in PHASES:
            self.store.start_epoch(phase, 1, died=False)

    def open(self) -> Store:
        return Store.open(self.folder / "crew", head_file=self.folder / "head", limits=Limits(hops=self.hops, deaths=2))

    def teardown(self) -> None:
        if sys.platform == "win32":  # which removes no file that somebody has open, if only a store let go
            vars(self).pop("store", None)
            gc.collect()
        shutil.rmtree(self.folder)

    def real(self, known: str) -> Message:
        return self.store.state.messages[self.names[known]]

    def alerted(self) -> None:
        """Learn the store's ids of the alerts that the model has."""
        for message in self.store.state.messages.values():
            if "quarantined" in message.data:
                about = next(key for key, name in self.names.items() if name == message.data["quarantined"])
                stem = f"alert {about}."
                for post in self.model.posts:
                    if post.id.startswith(stem) and post.id not in self.names:
                        self.names[post.id] = message.id

    @rule(phase=phases, thread=st.sampled_from("st"), kind=st.integers(0, 3))
    @precondition(lambda self: len(self.model.posts) < 12)
    def post(self, phase: int, thread: str, kind: int) -> None:
        name = f"u{len(self.model.posts)}"
        self.names[name] = name
        draft = Draft(to=PHASES[phase], kind=self.kinds[kind % len(self.kinds)], text=name, thread=thread)
        for new in (True, False):
            assert self.store.post("qa", draft, id=name).new is new
        approves = draft.kind == "Approved"
        self.model = MODEL.post(self.model, self.rules, phase, thread, name, name, approves=approves)

    def held_by(self, phase: int) -> int:
        """That phase if its worker is at something, else the other."""
        return phase if self.tasks[phase] is not None else 1 - phase

    @rule(phase=phases)
    @precondition(lambda self: any(m.status in (MODEL.OPEN, MODEL.HELD) for m in self.model.messages))
    def claim(self, phase: int) -> None:
        work = [m.to for m in self.model.messages if m.status in (MODEL.OPEN, MODEL.HELD)]
        if phase not in work:
            assert Mailbox(self.store, PHASES[phase], self.model.epochs[phase]).claim() is None
            phase = work[0]
        epoch = self.store.state.epochs[PHASES[phase]].number
        before = [m.id for m in self.model.messages if (m.to, m.status) == (phase, MODEL.HELD)]
        task = Mailbox(self.store, PHASES[phase], epoch).claim()
        assert task is not None
        known = next(key for key, name in self.names.items() if name == task.id)
        if before:
            assert before == [known], "what is held is given again"
        else:
            self.model = MODEL.claim(self.model, known, epoch)
        self.tasks[phase] = task

    @rule(pick=st.integers(0, 20))
    @precondition(lambda self: len(self.model.posts) < 12 and self.unfinished())
    def answer(self, pick: int) -> None:
        """The user answers something that is not closed."""
        known = self.unfinished()[pick % len(self.unfinished())]
        name = f"answer {len(self.model.posts)}"
        if not MODEL.may_answer(self.model, known):
            with pytest.raises(StoreError, match="goes on as"):
                self.store.answer(self.names[known], "so")
            return
        self.names[name] = name.replace(" ", "-")
        for _ in range(2):
            self.store.answer(self.names[known], "so", part=self.names[name])
        self.model = MODEL.answer(self.model, self.rules, known)

    def unfinished(self) -> list[str]:
        return [m.id for m in self.model.messages if m.status not in (MODEL.DONE, MODEL.WITHDRAWN)]

    @rule(phase=phases, how=st.sampled_from(("done", "tell", "approve", "blocked")), unsure=st.booleans())
    @precondition(lambda self: any(self.tasks))
    def finish(self, phase: int, how: str, *, unsure: bool) -> None:
        phase = self.held_by(phase)
        task = self.tasks[phase]
        assert task is not None
        known = next(key for key, name in self.names.items() if name == task.id)
        kind: Kind = "Approved" if how == "approve" else "Issue"
        posts = (Draft(to=PHASES[1 - phase], kind=kind, text="over to you"),) if how in ("tell", "approve") else ()
        outcome = Outcome(result="blocked" if how == "blocked" else "done", detail=how, posts=posts)
        result = Mailbox(self.store, PHASES[phase], task.epoch).finish(task, outcome)
        if unsure:  # it was committed, and its author saw an error
            self.restart(snapshot=True)
            assert self.store.finish(PHASES[phase], task.epoch, task, outcome) == result
        if posts:
            self.names[f"{known}.{task.round}.1"] = result.ids[0]
        parts = len(task.message.parts)
        self.model = MODEL.report(self.model, self.rules, task.epoch, known, task.round, parts, how)
        self.done.append((task, outcome, result))
        self.tasks[phase] = None

    @rule(
        phase=phases,
        meanwhile=st.sampled_from(("nothing", "an answer", "a message", "an approval")),
        how=st.sampled_from(("done", "tell", "blocked")),
    )
    @precondition(lambda self: any(m.status in (MODEL.OPEN, MODEL.HELD) for m in self.model.messages))
    def cycle(self, phase: int, meanwhile: str, how: str) -> None:
        """A whole cycle, and what may come in the middle of it: by single steps it rarely gets so far."""
        self.claim(phase)
        phase = self.held_by(phase)
        task = self.tasks[phase]
        assert task is not None
        known = next(key for key, name in self.names.items() if name == task.id)
        if meanwhile == "an answer" and known in self.unfinished():
            self.answer(self.unfinished().index(known))
        elif meanwhile in ("a message", "an approval") and task.thread in ("s", "t"):
            self.post(phase, task.thread, 0 if meanwhile == "a message" else self.kinds.index("Approved"))
        self.finish(phase, how, unsure=False)

    @rule(phase=phases, died=st.booleans())
    @precondition(lambda self: sum(self.model.epochs) < 9)
    def successor(self, phase: int, *, died: bool) -> None:
        epoch = self.model.epochs[phase]
        self.store.start_epoch(PHASES[phase], epoch + 1, died=died)
        self.model = MODEL.succeed(self.model, self.rules, phase, died=died)
        self.alerted()
        if (task := self.tasks[phase]) is not None:
            self.gone.append(task)
            self.tasks[phase] = None

    @rule()
    @precondition(lambda self: self.gone)
    def ghosts(self) -> None:
        """Whoever is left of older epochs writes nothing."""
        for task in self.gone:
            for post in ((), (Draft(to="qa", kind="Issue", text="boo"),)):
                with pytest.raises(FencedError):
                    self.store.finish(
                        task.message.to, task.epoch, task, Outcome(result="done", detail="boo", posts=post)
                    )

    @rule()
    @precondition(lambda self: self.model.messages)
    def load(self) -> None:
        """The user opens the documents in an editor."""
        self.shown = [
            (known, len(self.real(known).parts), self.real(known).round, self.real(known).status)
            for known in (m.id for m in self.model.messages)
            if self.real(known).status is not Status.WITHDRAWN
        ]

    @rule(pick=st.integers(0, 20), what=st.sampled_from(("tick", "delete")))
    @precondition(lambda self: self.shown)
    def save(self, pick: int, what: str) -> None:
        """The user saves one edit of what was shown to him, however long ago."""
        known, parts, round_, status = self.shown[pick % len(self.shown)]
        if status is Status.DONE:
            what = "untick"
        message = self.real(known)
        effect = Effect(what=what, id=message.id, seen=message.parts[:parts], round=round_)  # type: ignore[arg-type]
        document = READ[message.to]
        self.store.import_edit(document, lambda _: Edit(document=document, rev=1, effects=(effect,)))
        self.model = MODEL.by_hand(self.model, self.rules, what, known, parts, round_)

    @rule(snapshot=st.booleans())
    def restart(self, *, snapshot: bool) -> None:
        """The process ends without a word, and another opens the store."""
        state = self.store.state
        if not snapshot and sys.platform != "win32":  # where nobody can remove what the last store has open
            remove(self.folder / "crew" / ".history" / "archive.db")
        self.store = self.open()
        assert self.store.state == state

    @rule()
    def torn(self) -> None:
        """Somebody was killed while writing."""
        last = max((self.folder / "crew" / ".history").glob("*.jsonl"))
        with last.open("ab") as file:
            file.write(b'{"v":1,"n":')

    @invariant()
    def agrees(self) -> None:
        """The store's history means what the model's does."""
        if not hasattr(self, "store"):
            return
        assert self.model.broken == ""
        state = self.store.state
        assert len(state.messages) == len(self.model.posts)
        tasks = [m for m in state.messages.values() if m.status is not Status.JOINED]
        assert len(tasks) == len(self.model.messages)
        for message in self.model.messages:
            real = self.real(message.id)
            assert (
                PHASES[message.to], message.thread if message.thread in "st" else real.thread, message.status,
                message.round, message.parts, message.holder, message.deaths,
            ) == (
                real.to, real.thread, STATUS[real.status], real.round, len(real.parts), real.holder, real.deaths,
            )  # fmt: skip
            if message.status not in (MODEL.DONE, MODEL.WITHDRAWN):
                assert set(real.parts[: message.known]) == {*real.settled, *real.heard}, "what is no work any more"
        assert tuple(state.epochs[phase].number for phase in PHASES) == self.model.epochs


class Shown(Conformance):
    """The same, with an eye on the documents: what is shown changes only with a document's revision."""

    kinds = ("Issue", "Blocker", "Approved", "Fixed")

    @invariant()
    def shown_with_its_revision(self) -> None:
        if not hasattr(self, "store"):
            return
        state = self.store.state
        texts = {document.name: render(DEFAULT, document, state) for document in DEFAULT.documents[:6]}
        now = {
            name: (state.documents[name].n if name in state.documents else 0, text[: text.rindex("---")])
            for name, text in texts.items()
        }
        for name, (n, text) in now.items():
            before = getattr(self, "texts", {}).get(name, (0, text))
            assert text == before[1] or n > before[0], name
        self.texts = now


class Budgeted(Conformance):
    """The same with a short budget."""

    hops = 2


@contextmanager
def in_a_hurry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "SNAPSHOT_EVERY", 5)
        if sys.platform != "win32":  # where `restart` could not remove what is open
            patch.setattr(store_module, "MOST_HELD", 0)
        patch.setattr(history_module, "sync", lambda fd: None)  # nobody pulls the plug here
        yield


QUICK = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def driven(machine: type[Conformance], request: pytest.FixtureRequest, wanted: settings) -> None:
    """The same sequences in every run; others with `--hypothesis-seed=N`, of which the first bad one is told as it is.

    Making one shorter takes this machine longer than a test may.
    """
    from hypothesis.stateful import run_state_machine_as_test

    if request.config.getoption("--hypothesis-seed") is not None:
        wanted = settings(wanted, derandomize=False, phases=[Phase.generate], database=None)
    with in_a_hurry():
        run_state_machine_as_test(machine, settings=wanted)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("machine", [Conformance, Budgeted])
def test_the_store_does_what_the_model_does(machine: type[Conformance], request: pytest.FixtureRequest) -> None:
    """Any sequence of posts, claims, reports, ends, saves, answers and crashes comes out as the model says."""
    driven(machine, request, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("machine", [Conformance, Budgeted, Shown])
def test_the_same_for_longer(machine: type[Conformance], request: pytest.FixtureRequest) -> None:
    """The same, over more and longer sequences."""
    driven(machine, request, settings(QUICK, max_examples=40 if machine is Shown else 100, stateful_step_count=40))
