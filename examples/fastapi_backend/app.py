"""A backend that runs a tool and streams its progress to browsers over WebSocket.

Start it with `uvicorn app:app` in this folder and open http://127.0.0.1:8000. Each audit keeps its messages in a list;
each browser goes through that list at its own pace, so a slow one slows nobody, and one that comes back with the number
of the last message it has seen misses nothing that is still kept, and is told how many messages are not.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse

import ipc

HERE = Path(__file__).parent
TOOL = [sys.executable, str(HERE / "tool.py")]
KEPT = 20  # audits
MESSAGES = 2000  # kept of each

log = logging.getLogger("uvicorn.error")


class Audit:
    """One run of the tool and the last messages of what it has said; ValueError if it cannot be run like this."""

    def __init__(self, arguments: list[str]) -> None:
        self.messages: deque[Any] = deque(maxlen=MESSAGES)
        self.said = 0
        self.finished = False
        self._more = asyncio.Event()
        self._run = ipc.run([*TOOL, *arguments], on_log=self._log)

    async def run(self) -> None:
        try:
            async with self._run as run:
                async for event in run:
                    self._add(ipc.client_message(event))
        except Exception as error:  # noqa: BLE001 - nobody waits for this task but the browsers
            log.exception("the audit failed")
            end = ipc.ProgressEvent("audit_complete", step="error", pct=100, detail=f"the audit failed: {error}")
            self._add(ipc.client_message(end))
        finally:
            self.finished = True
            self._tell()

    async def after(self, seen: int) -> AsyncIterator[tuple[int, Any]]:
        """Messages after the first `seen`, with their numbers, until the audit is over."""
        while True:
            more = self._more
            while seen < self.said:
                gone = self.said - len(self.messages)
                if seen < gone:
                    left_out, seen = gone - seen, gone
                    yield seen, {"type": "log_entry", "phase": "", "message": f"messages no longer kept: {left_out}"}
                    continue  # more may have gone meanwhile
                seen += 1
                yield seen, self.messages[seen - gone - 1]
            if self.finished:
                return
            await more.wait()

    def _log(self, line: str, _stream: str) -> None:
        self._add({"type": "log_entry", "phase": "", "message": line})

    def _add(self, message: Any) -> None:
        self.messages.append(message)
        self.said += 1
        self._tell()

    def _tell(self) -> None:
        self._more.set()
        self._more = asyncio.Event()


audits: dict[int, Audit] = {}
tasks: set[asyncio.Task[None]] = set()
numbers = itertools.count(1)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """When the backend stops, so do its tools, with everything that they have started."""
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(HERE / "index.html")


@app.post("/audits")
async def start(pages: Annotated[int, Query(ge=1, le=1000)] = 7) -> dict[str, int]:
    """Begin an audit; the answer names it."""
    try:
        audit = Audit([str(pages)])
    except ValueError as error:  # a mode that there is not, above all
        raise HTTPException(500, f"the tool cannot be run: {error}") from error
    number = next(numbers)
    audits[number] = audit
    task = asyncio.create_task(audit.run())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    for old in [n for n, one in audits.items() if one.finished][:-KEPT]:
        del audits[old]
    return {"audit": number}


@app.get("/audits/{number}")
async def status(number: int) -> dict[str, Any]:
    if number not in audits:
        raise HTTPException(404, f"there is no audit {number}")
    return {"messages": audits[number].said, "finished": audits[number].finished}


@app.websocket("/audits/{number}/events")
async def events(socket: WebSocket, number: int, after: Annotated[int, Query(ge=0)] = 0) -> None:
    """Every message after the first `after`, each as `{"cursor": …, "message": …}`; closes when the audit is over."""
    await socket.accept()
    audit = audits.get(number)
    if audit is None:
        await socket.close(code=4404, reason=f"there is no audit {number}")
        return
    try:
        async for cursor, message in audit.after(after):
            await socket.send_json({"cursor": cursor, "message": message})
        await socket.close()
    except WebSocketDisconnect:
        pass  # the browser has gone; the audit goes on
