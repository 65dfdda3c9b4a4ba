"""Carries out what people ask of a running crew, in tasks beside the owner's loop, and says what came of it.

The owner has taken the command from its mailbox; here is what may wait: workers that stop, the store's lock, a file to
read. Commands that go through the whole crew wait for each other in its lane; whether others get into each other's way
is told by the seat (`moving`) and by the one desk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from anyio.to_thread import run_sync

from docs_store.errors import StoreError
from docs_store.messages import USER

from .commands import AnswerIt, Command, GiveTask, Hold, Reload, Reply, RestartAll, RestartPhase, StopCrew
from .config import Config
from .exits import WORDS, UserError, judged

if TYPE_CHECKING:
    from .crew import Crew

LATER = "takes effect when the supervisor is started again"


async def carry_out(crew: Crew, command: Command) -> Reply:
    """Do it and say what was done; a refusal is a `Reply` too, an error of ours goes up."""
    try:
        match command:
            case StopCrew():
                return Reply(ok=True, text="stopping")
            case RestartPhase(phase=phase):
                return await _restart(crew, phase)
            case RestartAll():
                async with crew.lane:
                    return await _restart_all(crew)
            case Reload():
                async with crew.lane:
                    return await _reload(crew)
            case Hold():
                return await _hold(crew, command)
            case GiveTask():
                return await _give(crew, command)
            case AnswerIt(id=id_, text=text):
                return await _answer(crew, id_, text)
            case _:
                assert_never(command)
    except (StoreError, UserError) as error:
        code, text = judged(error)
        return Reply(ok=False, text=text, data={"code": WORDS.get(code, "refused")})


async def _restart(crew: Crew, phase: str) -> Reply:
    seat = crew.seats.get(phase)
    if seat is None:
        return Reply(ok=False, text=_unknown(crew, phase))
    if seat.moving:
        if seat.state == "backoff":
            seat.hurry.set()
            return Reply(ok=True, text=f"{phase} was waiting to be started again; it starts now", data={"phase": phase})
        return Reply(ok=False, text=f"{phase} is being restarted already", data={"phase": phase})
    before = seat.epoch
    await crew.restart(seat, "a person asked for it (supervisor restart)")
    if seat.epoch == before:
        return Reply(ok=False, text=f"{phase} could not be started yet: {seat.detail}; it is tried again")
    pid = seat.child.pid if seat.child is not None else None
    return Reply(
        ok=True,
        text=f"{phase} has a new worker: process {pid}, epoch {seat.epoch}",
        data={"phase": phase, "pid": pid, "epoch": seat.epoch},
    )


async def _restart_all(crew: Crew) -> Reply:
    """One that does not get ready ends it: then something is wrong that would end the others, too."""
    done: list[str] = []
    await crew.standby.refresh()  # a program that was installed meanwhile is what the new ones run
    ended = [key for key, seat in crew.seats.items() if seat.state == "ended"]  # their work is done
    keys = [key for key in crew.seats if key not in ended]
    for n, key in enumerate(keys):
        seat = crew.seats[key]
        reply = await _restart(crew, key)
        if not reply.ok or not await crew.ready(seat):
            why = reply.text if not reply.ok else f"its new worker did not get ready: {seat.detail or 'it has gone'}"
            left = keys[n + 1 :]
            text = (
                f"{key}: {why}. Restarted: {', '.join(done) or 'none'}; left as they are: {', '.join(left) or 'none'}"
            )
            return Reply(ok=False, text=text, data={"restarted": done, "failed": key, "left": left})
        done.append(key)
    text = f"all have new workers, each ready before the next was touched: {', '.join(done)}"
    text += f"; {', '.join(ended)} had ended, and stays so" if ended else ""
    return Reply(ok=True, text=text, data={"restarted": done})


async def _reload(crew: Crew) -> Reply:
    """Compare, then touch only what changed; a file with mistakes changes nothing."""
    from .bootstrap import require_trust
    from .own_actors import require_usable_actors

    new = await crew.at_desk(crew.workspace.read_config)
    await crew.at_desk(lambda: require_trust(crew.workspace, new))
    old = crew.config
    later = not_in_force(crew.begun, new)
    still = [f"{', '.join(later)} {LATER}"] if later else []
    if new == old:
        said = ["supervisor.toml says what it said before; nothing was touched", *still]
        return Reply(ok=True, text="; ".join(said), data=_said((), later))
    if new.topology != old.topology:
        return Reply(
            ok=False,
            text="the phases themselves have changed, which a running crew cannot take over; "
            "stop the supervisor and start it again",
        )
    await run_sync(require_usable_actors, crew.workspace, new)
    affected = tuple(key for key in crew.seats if needs_restart(old, new, key))
    crew.reconfigure(new)
    await crew.apply_limits()
    restarted: list[str] = []
    left: list[str] = []
    if affected:
        await crew.standby.refresh()
    for key in affected:
        seat = crew.seats[key]
        if seat.child is not None and not seat.moving:
            await crew.restart(seat, "its part of supervisor.toml has changed")
            restarted.append(key)
        elif seat.moving:
            left.append(f"{key} was being restarted just then; `supervisor restart {key}` makes sure of it")
        else:
            left.append(f"{key} has no worker ({seat.state}); its next one reads it")
    said = [f"restarted: {', '.join(restarted)}" if restarted else "no worker had to be restarted"]
    said += [*left, *still]
    return Reply(ok=True, text=f"supervisor.toml is read again; {'; '.join(said)}", data=_said(restarted, later))


def not_in_force(begun: Config, new: Config) -> tuple[str, ...]:
    """The parts of the file that only a start of the supervisor takes up, where they are others than at this one's."""
    parts = {
        "[ipc]": new.ipc != begun.ipc,
        "after": any(new.phases[key].after != its.after for key, its in begun.phases.items() if key in new.phases),
        "[log]": new.log != begun.log,
        "[journal]": new.journal != begun.journal,
    }
    return tuple(name for name, is_other in parts.items() if is_other)


def needs_restart(old: Config, new: Config, phase: str) -> bool:
    """Whether what the phase's worker was told at its start has changed."""
    before, after = old.phases[phase], new.phases[phase]
    told = ("driver", "actor", "options")
    return old.project != new.project or any(getattr(before, name) != getattr(after, name) for name in told)


def _said(restarted: Sequence[str], later: Sequence[str]) -> dict[str, list[str]]:
    return {"restarted": list(restarted), "later": list(later)}


async def _hold(crew: Crew, command: Hold) -> Reply:
    for phase in command.phases:
        if phase not in crew.seats:
            return Reply(ok=False, text=_unknown(crew, phase))
    keys = command.phases or tuple(crew.seats)

    def record() -> None:
        for key in keys:
            crew.documents.store.pause(key, command.paused)

    await crew.at_desk(record)
    await crew.look()
    word = "paused; `supervisor resume` lets them go on" if command.paused else "going on"
    return Reply(ok=True, text=f"{', '.join(keys)}: {word}", data={"phases": list(keys), "paused": command.paused})


async def _give(crew: Crew, command: GiveTask) -> Reply:
    draft = command.draft
    posted = await crew.at_desk(lambda: crew.documents.store.post(USER, draft))
    await crew.look()
    file = f"crew/{crew.config.topology.read_document(draft.to).file}"
    text = f"{posted.id} joined {posted.joined}, which is open about the same" if posted.joined else f"{posted.id} is"
    return Reply(
        ok=True,
        text=f"{text}, in {file}" if posted.joined else f"{text} in {file}",
        data={"id": posted.id, "to": draft.to, "joined": posted.joined, "document": file},
    )


async def _answer(crew: Crew, id_: str, text: str) -> Reply:
    record = await crew.at_desk(lambda: crew.documents.store.answer(id_, text))
    await crew.look()
    return Reply(ok=True, text=f"{id_} is answered (record {record})", data={"id": id_, "record": record})


def _unknown(crew: Crew, phase: str) -> str:
    return f"there is no phase named {phase!r}; there are: {', '.join(crew.seats)}"
