"""Warm spares with real workers: handed out once, replaced, and not in a storm."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from ipc.process import is_alive
from supervisor.child import Child, Fact
from supervisor.standby import MOST_DEATHS, Standby

HOW = "exited with code 9" if sys.platform == "win32" else "was ended by signal 9"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Bench:
    """A standby, every child it made, and what it complained about."""

    command: list[str] | None = None
    made: list[Child] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    standby: Standby = field(init=False)

    def make(self, tell: Callable[[Fact], None]) -> Child:
        self.made.append(Child(tell=tell, command=self.command))
        return self.made[-1]

    @asynccontextmanager
    async def running(self, count: int, at_once: int = 8) -> AsyncIterator[Standby]:
        self.standby = Standby(self.make, count=count, at_once=at_once, failed=self.complaints.append)
        async with anyio.create_task_group() as group:
            await group.start(self.standby.run)
            yield self.standby
            group.cancel_scope.cancel()


async def until(holds: Callable[[], Any]) -> None:
    with anyio.fail_after(15):
        while not holds():  # noqa: ASYNC110 - a spare tells nobody that it is one
            await anyio.sleep(0.005)


async def test_a_spare_is_handed_out_once_and_replaced() -> None:
    """Two takers get two workers; the spare is replaced when the taken one has settled."""
    bench = Bench()
    async with bench.running(1) as standby:
        await until(lambda: standby.warm == 1)
        first = await standby.take(bench.facts.append)
        assert first is bench.made[0]
        assert first.is_spare
        second = await standby.take(bench.facts.append)
        assert second is not first
        assert await second.wait_spare()
        assert len(bench.made) == 2, "nothing is replaced before those two have settled"
        await first.stop(10)
        first.close()
        await second.stop(10)
        second.close()
        await until(lambda: standby.warm == 1)
        assert len(bench.made) == 3
        assert bench.complaints == []
    assert not is_alive(bench.made[2].identity), "spares end with the standby"


async def test_no_spares_is_a_choice() -> None:
    """With none to keep, every worker is started when it is needed."""
    bench = Bench()
    async with bench.running(0) as standby:
        child = await standby.take(bench.facts.append)
        assert await child.wait_spare()
        await child.stop(10)
        child.close()
        assert bench.made == [child]
    with pytest.raises(ValueError, match="0 or more"):
        Standby(bench.make, count=-1)


async def test_a_large_crew_starts_a_few_at_a_time() -> None:
    """With two on their way to ready the third interpreter is not started before one of them is ready, or gone."""
    bench = Bench()
    async with bench.running(0, at_once=2) as standby, anyio.create_task_group() as group:
        first, second = await standby.take(bench.facts.append), await standby.take(bench.facts.append)
        third: list[Child] = []

        async def take_third() -> None:
            third.append(await standby.take(bench.facts.append))

        group.start_soon(take_third)
        assert await first.wait_spare()
        assert await second.wait_spare()
        await anyio.lowlevel.checkpoint()  # whoever could go on has had its turn by now: both have imported everything
        assert len(bench.made) == 2
        await first.stop(10)
        first.close()
        await until(lambda: third)
        for child in (second, *third):
            await child.stop(10)
            child.close()


async def test_a_killed_spare_is_replaced() -> None:
    """A spare that dies is replaced and told about, and never handed out."""
    bench = Bench()
    async with bench.running(1) as standby:
        await until(lambda: standby.warm == 1)
        os.kill(bench.made[0].pid, 9)
        await until(lambda: len(bench.made) == 2 and standby.warm == 1)
        assert await standby.take(bench.facts.append) is bench.made[1]
        assert len(bench.complaints) == 1
        assert bench.complaints[0].startswith(f"a spare worker {HOW}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a death is known only when its waiter has heard of it")
async def test_a_spare_that_has_just_died_is_not_handed_out() -> None:
    """Whoever kills a worker and the spare in one go does not make the successor a failed start."""
    bench = Bench()
    async with bench.running(1) as standby:
        await until(lambda: standby.warm == 1)
        spare = bench.made[0]
        os.kill(spare.pid, 9)
        os.waitid(os.P_PID, spare.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop is to have no turn
        assert spare.exited is None
        taken = await standby.take(bench.facts.append)
        assert taken is not spare
        assert await taken.wait_spare()
        await taken.stop(10)
        taken.close()


async def test_spares_that_cannot_start_do_not_storm() -> None:
    """A spare whose start fails is told about and not tried again until somebody asks."""
    bench = Bench(command=[sys.executable, "-c", "raise SystemExit('broken installation')"])
    async with bench.running(1) as standby:
        await until(lambda: bench.complaints)
        assert "broken installation" in bench.complaints[0]
        await wait_all_tasks_blocked()
        assert len(bench.made) == 1
        child = await standby.take(bench.facts.append)
        assert (await child.wait()).ready is False
        child.close()
        assert len(bench.made) <= 3
    storm = Bench(command=["no-such-interpreter"])
    async with storm.running(1):
        await until(lambda: storm.complaints)
        assert "no-such-interpreter could not be started" in storm.complaints[0]
        assert len(storm.made) == 1


async def test_refresh_replaces_and_stop_ends() -> None:
    """After a change of the installation the spares are new ones; after stop there are none, nor new ones."""
    bench = Bench()
    async with bench.running(1) as standby:
        await until(lambda: standby.warm == 1)
        await standby.refresh()
        await until(lambda: standby.warm == 1)
        assert len(bench.made) == 2
        assert bench.made[0].exited is not None
        taken = await standby.take(bench.facts.append)
        await standby.stop()
        assert taken.exited is None, "who was taken goes on"
        await taken.stop(10)
        taken.close()
        assert standby.warm == 0
        assert bench.complaints == []
    assert MOST_DEATHS > 1
