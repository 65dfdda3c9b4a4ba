"""Runs the control API inside the supervisor's event loop, from a free port of 127.0.0.1 to the last answer.

Signals stay the supervisor's, logs go to its log; a machine where no port can be had loses the API and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from anyio.to_thread import run_sync

from supervisor.workspace import Workspace

from .app import make_app
from .endpoint import HOST, Endpoint, new_token, publish, withdraw
from .service import Backend

MOST_CONNECTIONS = 64
MOST_HEADERS = 64 * 1024  # bytes
MOST_SAID = 64 * 1024  # bytes of one WebSocket message of a client; none is needed
LAST_ANSWERS = 2  # seconds for answers under way at the end


class _Server(uvicorn.Server):
    """uvicorn's, which leaves signals to the supervisor and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = anyio.Event()
        self._leaving = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Wait for `leave`; the original looks ten times a second, which a week of idleness has no use for."""
        await self._leaving.wait()

    def leave(self) -> None:
        """Take no more connections, and end when the answers under way are given."""
        self.should_exit = True
        self._leaving.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def serving(backend: Backend, workspace: Workspace, file: Path) -> AsyncIterator[Endpoint]:
    """Serve until the block is left; meanwhile the endpoint file names address and token. OSError without a port."""
    listener = _listener()
    endpoint = Endpoint(
        pid=os.getpid(), port=listener.getsockname()[1], token=new_token(), workspace=str(workspace.root)
    )
    server = _Server(_config(make_app(backend, port=endpoint.port, token=endpoint.token)))
    ended = anyio.Event()

    async def serve() -> None:
        try:
            await server.serve([listener])
        finally:
            ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        try:
            await server.listening.wait()
            await run_sync(publish, file, endpoint)
            yield endpoint
        finally:
            with anyio.CancelScope(shield=True):
                withdraw(file, endpoint)
                server.leave()
                with anyio.move_on_after(LAST_ANSWERS + 1):
                    await ended.wait()
            group.cancel_scope.cancel()


def _listener() -> socket.socket:
    """A socket on a free port that no other program can share."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        listener.bind((HOST, 0))
        listener.set_inheritable(False)
    except OSError:
        listener.close()
        raise
    return listener


def _config(app: Any) -> uvicorn.Config:
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        loop="none",
        http="h11",
        ws="websockets-sansio",
        ws_max_size=MOST_SAID,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEADERS,
        timeout_graceful_shutdown=LAST_ANSWERS,
    )
