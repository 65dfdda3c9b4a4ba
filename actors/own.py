"""A phase of the user's own: the class to write, and how the one that `supervisor.toml` names is found and judged.

A class is judged before the first worker starts (`actors.judge`), in a process of its own, and once more by the worker
that becomes its phase. What is wrong with it is said in words for the person who wrote it.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from docs_store.messages import KINDS, Draft, Kind, Message, Outcome, Task
from docs_store.topology import Topology

from .driver import Context, Driver
from .phases import POLICIES, Policy

EXPECTED = '"package.module:Class"'


class ActorError(Exception):
    """The actor that `supervisor.toml` names cannot be used; the text says why."""


class PhaseActor(ABC):
    """What a phase does in a cycle. Subclass it, or write any class with such a `perform`.

    One object lives as long as its worker, is made without arguments, and gets one task after another. `opening` is the
    step that a cycle's first event names; `reads` are the documents it gets with each task (none: its own READ document
    and the strategic ones); `tells` limits which kinds of message go to whom (nobody named: no limit).
    """

    opening: ClassVar[str] = "analyzing"
    reads: ClassVar[Sequence[str]] = ()
    tells: ClassVar[Mapping[str, Collection[Kind]]] = {}

    @abstractmethod
    async def perform(self, task: Task, context: Context) -> Outcome:
        """Do the work of one task; all that is to be written is the outcome.

        It may be cancelled at any `await`, and the process may be killed anywhere: then nothing was written, and the
        next attempt begins anew.
        """


def find(name: str) -> object:
    """What `package.module:name` names. Raises `ActorError`."""
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ActorError(f"{name!r} is no dotted path; it must read {EXPECTED}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ActorError(
                f"there is no module {error.name!r} in the supervisor's environment, PYTHONPATH or the workspace"
            ) from error
        raise ActorError(f"the import of {module} failed: {_told(error)}") from error
    except Exception as error:
        raise ActorError(f"the import of {module} failed: {_told(error)}") from error
    if not hasattr(found, attribute):
        classes = [key for key, value in vars(found).items() if inspect.isclass(value) and value.__module__ == module]
        there = f"its classes are: {', '.join(classes)}" if classes else "it has no classes"
        raise ActorError(f"{module} ({found.__file__}) has no {attribute!r}; {there}")
    return cast("object", getattr(found, attribute))


def is_loop(found: object) -> bool:
    """Whether it replaces the whole loop of a worker: a coroutine function of (line, assignment), for the few."""
    return inspect.iscoroutinefunction(found)


def require_usable(found: object, name: str, phase: str, topology: Topology) -> None:
    """Raise `ActorError` with everything that is wrong with this actor for that phase."""
    if is_loop(found):
        if not _takes(cast("Callable[..., Any]", found), 2):
            raise ActorError(f"{name} is a coroutine function and must take a line and an assignment")
        return
    if not isinstance(found, type):
        raise ActorError(f"{name} is {_a(found)}, not a class with `async def perform(self, task, context)`")
    wrong = [*_wrong_with_methods(found, name), *_wrong_with_policy(found, name, phase, topology)]
    if wrong:
        raise ActorError("; ".join(wrong))


def made(found: object, name: str) -> Driver:
    """The one object of a usable class. Raises `ActorError` where its `__init__` fails."""
    try:
        return cast("Driver", cast("type", found)())
    except Exception as error:
        raise ActorError(f"{name}() failed: {_told(error)}") from error


def policy_of(phase: str, topology: Topology, actor: object = None) -> Policy:
    """The phase's policy: fixed for the four, else as its class says; and what it is a reader of."""
    policy = POLICIES[phase] if phase in POLICIES else _own_policy(phase, topology, actor)
    more = tuple(d.name for d in topology.read_by(phase) if d.name not in policy.reads)
    return replace(policy, reads=(*policy.reads, *more)) if more else policy


def _own_policy(phase: str, topology: Topology, actor: object) -> Policy:
    own = topology.read_document(phase).name
    strategic = tuple(d.name for d in topology.documents if d.role == "strategic")
    reads = tuple(topology.document(name).name for name in getattr(actor, "reads", ()))
    tells = {to: frozenset(kinds) for to, kinds in getattr(actor, "tells", {}).items()}
    opening = str(getattr(actor, "opening", PhaseActor.opening))
    return Policy(key=phase, opening=opening, reads=reads or (own, *strategic), tells=tells)


def _wrong_with_methods(found: type, name: str) -> Iterator[str]:
    perform = getattr(found, "perform", None)
    if perform is None or perform is PhaseActor.perform:
        yield f"{name} has no `async def perform(self, task, context)`"
    elif not inspect.iscoroutinefunction(perform):
        yield f"{name}.perform must be an `async def`"
    elif not _takes(perform, 3):
        yield f"{name}.perform{inspect.signature(perform)} cannot be called with a task and a context"
    missing = sorted(getattr(found, "__abstractmethods__", frozenset()) - {"perform"})
    if missing:
        yield f"{name} leaves open: {', '.join(missing)}"
    elif not _takes(found, 0):
        yield f"{name} must be made without arguments (its settings are in context.options)"


def _wrong_with_policy(found: type, name: str, phase: str, topology: Topology) -> Iterator[str]:
    reads, tells = getattr(found, "reads", ()), getattr(found, "tells", {})
    if phase in POLICIES:
        if reads or tells:
            yield f"{name}: what {phase} reads and whom it tells is fixed; leave out reads and tells"
        return
    documents = {document.name for document in topology.documents}
    if isinstance(reads, str) or not isinstance(reads, Sequence):
        yield f"{name}.reads must be a tuple of documents"
    else:
        unknown = [str(one) for one in reads if str(one).removesuffix(".md") not in documents]
        if unknown:
            yield f"{name}.reads names {', '.join(unknown)}; there are: {', '.join(sorted(documents))}"
    if not isinstance(tells, Mapping):
        yield f"{name}.tells must map phases to kinds of message"
        return
    others = {other.key for other in topology.phases} - {phase}
    for to, kinds in tells.items():
        if to not in others:
            yield f"{name}.tells names {to!r}; it can tell: {', '.join(sorted(others))}"
        unknown = [str(kind) for kind in kinds if kind not in KINDS]
        if unknown:
            yield f"{name}.tells[{to!r}] names {', '.join(unknown)}; kinds are: {', '.join(KINDS)}"


def _takes(work: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many arguments by place."""
    try:
        inspect.signature(work).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a class of C code does not say
        return True
    return True


def _told(error: BaseException) -> str:
    """What went wrong, and the last place in it that is not the import machinery."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {error}{where}"


def _a(thing: object) -> str:
    kind = type(thing).__name__
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


__all__ = [
    "ActorError",
    "Context",
    "Draft",
    "Message",
    "Outcome",
    "PhaseActor",
    "Task",
    "find",
    "is_loop",
    "made",
    "policy_of",
    "require_usable",
]
