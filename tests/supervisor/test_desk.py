"""The documents' one thread: patient where waiting helps, loud once."""

from __future__ import annotations

from typing import Any, cast

import pytest

from actors.trees_process import GitProcessError
from docs_store.errors import StoreUnavailableError
from supervisor import desk as module
from supervisor.desk import Desk
from supervisor.plane import EventPlane

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Plane:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def record(self, _kind: str, **fields: Any) -> None:
        self.told.append(fields["detail"])


async def test_what_git_lost_is_asked_again_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line is the problem; the others name a process, which is another each time."""
    monkeypatch.setattr(module, "TRY_AGAIN", 0.0)
    errors = [GitProcessError(f"git died\n(process {pid})") for pid in (1, 2)] + [StoreUnavailableError("full")]
    plane = Plane()

    def work() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    assert await Desk(cast("EventPlane", plane)).patiently(work) == "done"
    assert plane.told == ["git died", "full"]
