"""What can be asked of a running supervisor over http and WebSocket: one table of endpoints, and what each answers.

Routes and the OpenAPI document come from the same table, so neither can know what the other does not. Who may enter is
`guard`'s, what a command does the crew's.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import msgspec
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from docs_store.errors import StoreError
from docs_store.topology import Document
from supervisor.commands import (
    AnswerIt,
    Command,
    GiveTask,
    Hold,
    Reload,
    Reply,
    RestartAll,
    RestartPhase,
    StopCrew,
    draft_of,
)
from supervisor.exits import UserError
from supervisor.journal import Cursor, CursorGoneError, JournalError

from . import guard, page, shapes
from .service import Backend

MOST_EVENTS = 1000  # in one answer
SLOW = 10.0  # seconds that one message to a WebSocket client may take; then it is cut, and comes back by its cursor
STATUS_EVERY = 0.5  # seconds between two looks at whether the status has changed
NORMAL = 1000  # a WebSocket's close codes
TRY_AGAIN_LATER = 1013
UNSUPPORTED = 1003

Handler = Callable[[Request, Backend], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One word of the query or of the path."""

    name: str
    text: str
    within: Literal["query", "path"] = "query"
    schema: Any = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One thing that can be asked: for the router and for the OpenAPI document."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    handler: Handler
    answer: type[msgspec.Struct] | str  # a shape, or a content type
    body: type[shapes.Body] | None = None
    parameters: Sequence[Parameter] = ()
    refusals: Sequence[int] = ()


class RefusedError(Exception):
    """The request cannot be answered; becomes a status and an `ErrorOut`."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def make_app(backend: Backend, *, port: int, token: str) -> guard.App:
    """The whole application behind its guard."""
    routes = [
        Route(point.path, _bound(point.handler, backend), methods=[point.method], name=point.path)
        for point in ENDPOINTS
    ]
    app = Starlette(
        routes=[*routes, WebSocketRoute("/api/events", _stream_to(backend)), *page.routes()],
        exception_handlers={
            RefusedError: _refused,
            HTTPException: _http_error,
            StoreError: _store_error,
            UserError: _store_error,
            JournalError: _store_error,
            Exception: _our_error,
        },
    )
    return guard.Guard(app, port=port, token=token, public=frozenset(page.FILES))


def _bound(handler: Handler, backend: Backend) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handler(request, backend)

    return endpoint


# --- errors


def _error(status: int, code: str, text: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "text": text}}, status)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _error(error.status, error.code, str(error))


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "there is nothing here; /openapi.json says what there is" if error.status_code == 404 else error.detail
    return _error(error.status_code, "http", text)


async def _store_error(_request: Request, error: Exception) -> Response:
    return _error(503, "unavailable", str(error))


async def _our_error(_request: Request, error: Exception) -> Response:
    return _error(500, "internal", f"an error of ours ({type(error).__name__}); the supervisor's log says where")


# --- looking


async def _status(_request: Request, backend: Backend) -> Response:
    return JSONResponse(backend.status().as_json())


async def _events(request: Request, backend: Backend) -> Response:
    after, phase, type_ = _filters(request.query_params, backend)
    last = _whole(request, "last", 1, MOST_EVENTS, 0)
    limit = _whole(request, "limit", 1, MOST_EVENTS, 100)
    if last:
        after, limit = _before_last(backend.here(), last), last
    try:
        found, cursor, more = await backend.events(after, limit, phase, type_)
    except CursorGoneError as error:
        if not last:
            raise RefusedError(410, "cursor", str(error)) from None
        found, cursor, more = await backend.events(None, limit, phase, type_)  # retention has left fewer than that
    return JSONResponse({"events": [event.as_json() for event in found], "cursor": str(cursor), "more": more})


async def _documents(_request: Request, backend: Backend) -> Response:
    found = await backend.documents()
    return JSONResponse({"documents": [dataclasses.asdict(one) for one in found]})


async def _document(request: Request, backend: Backend) -> Response:
    document = _named(request.path_params["name"], backend)
    record, text = await backend.document(document.name)
    return JSONResponse({"name": document.name, "file": document.file, "record": record, "text": text})


def _named(name: str, backend: Backend) -> Document:
    """One of the topology's documents, by name: what a client says is never a path."""
    for document in backend.topology().documents:
        if name in (document.name, document.file):
            return document
    raise RefusedError(404, "document", "there is no such document; /api/documents lists them")


async def _inbox(_request: Request, backend: Backend) -> Response:
    return JSONResponse({"items": [item.as_json() for item in await backend.inbox()]})


async def _why(request: Request, backend: Backend) -> Response:
    phase = _phase(request.path_params["phase"], backend)
    found = await backend.why(phase)
    return JSONResponse({"phase": phase, "reasons": [reason.as_json() for reason in found]})


async def _rollout(_request: Request, backend: Backend) -> Response:
    return JSONResponse(await backend.rollout())


async def _metrics(_request: Request, backend: Backend) -> Response:
    # Imported by the first who asks, beside the loop: most crews are never asked, and it is not small.
    metrics = await run_sync(importlib.import_module, "supervisor.control.metrics")
    return Response(metrics.exposition(backend.status(), backend.figures()), media_type=metrics.CONTENT_TYPE)


async def _openapi(_request: Request, _backend: Backend) -> Response:
    from .openapi import document

    return JSONResponse(document(ENDPOINTS))


# --- commands


async def _stop(request: Request, backend: Backend) -> Response:
    await _body(request, shapes.Nothing)
    return await _ask(backend, StopCrew())


async def _restart(request: Request, backend: Backend) -> Response:
    body = await _body(request, shapes.RestartBody)
    if body.all and not body.phase:
        return await _ask(backend, RestartAll())
    if body.all or not body.phase:
        raise RefusedError(422, "body", "name a phase, or say all")
    return await _ask(backend, RestartPhase(phase=_phase(body.phase, backend)))


async def _reload(request: Request, backend: Backend) -> Response:
    await _body(request, shapes.Nothing)
    return await _ask(backend, Reload())


async def _pause(request: Request, backend: Backend) -> Response:
    return await _hold(request, backend, paused=True)


async def _resume(request: Request, backend: Backend) -> Response:
    return await _hold(request, backend, paused=False)


async def _hold(request: Request, backend: Backend, *, paused: bool) -> Response:
    body = await _body(request, shapes.HoldBody)
    phases = () if body.phase is None else (_phase(body.phase, backend),)
    return await _ask(backend, Hold(phases=phases, paused=paused))


async def _task(request: Request, backend: Backend) -> Response:
    body = await _body(request, shapes.TaskBody)
    to = _phase(body.to, backend)
    try:
        draft = draft_of(to, body.text, body.priority)
    except UserError as error:
        raise RefusedError(422, "task", str(error)) from None
    return await _ask(backend, GiveTask(draft=draft))


async def _answer(request: Request, backend: Backend) -> Response:
    body = await _body(request, shapes.AnswerBody)
    return await _ask(backend, AnswerIt(id=body.id, text=body.text))


async def _ask(backend: Backend, command: Command) -> Response:
    reply: Reply = await backend.command(command)
    return JSONResponse({"ok": reply.ok, "text": reply.text, "data": dict(reply.data)}, 200 if reply.ok else 409)


# --- what a request says


async def _body(request: Request, shape: type[Any]) -> Any:
    """The body as that shape; an empty one is an empty object."""
    raw = await request.body()
    try:
        return msgspec.json.decode(raw or b"{}", type=shape)
    except ValueError as error:  # msgspec's, and UTF-8's
        raise RefusedError(422, "body", f"the body is not what is needed here: {error}") from None


def _phase(word: str, backend: Backend) -> str:
    keys = [phase.key for phase in backend.topology().phases]
    if word.lower() not in keys:
        raise RefusedError(404, "phase", f"there is no such phase; there are: {', '.join(keys)}")
    return word.lower()


def _filters(query: Any, backend: Backend) -> tuple[Cursor | None, str | None, str | None]:
    after, phase, type_ = (query.get(name) or None for name in ("after", "phase", "type"))
    try:
        cursor = Cursor.parse(after) if after is not None else None
    except ValueError as error:
        raise RefusedError(422, "cursor", f"after: {error}") from None
    return cursor, _phase(phase, backend) if phase is not None and phase != "supervisor" else phase, type_


def _before_last(here: Cursor, last: int) -> Cursor:
    """The cursor that the last so many events follow."""
    return dataclasses.replace(here, n=max(here.n - last, 0))


def _whole(request: Request, name: str, least: int, most: int, usual: int) -> int:
    said = request.query_params.get(name)
    if said is None:
        return usual
    if not (said.isascii() and said.isdecimal() and least <= int(said[:10]) <= most):
        raise RefusedError(422, name, f"{name} must be a whole number from {least} to {most}")
    return int(said)


# --- the stream


def _stream_to(backend: Backend) -> Callable[[WebSocket], Awaitable[None]]:
    async def endpoint(websocket: WebSocket) -> None:
        await stream(websocket, backend)

    return endpoint


async def stream(websocket: WebSocket, backend: Backend) -> None:
    """Snapshot first, then events by cursor, and the status whenever it changes; a client that is too slow is cut."""
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(guard.PROTOCOL if guard.PROTOCOL in offered else None)
    try:
        after, phase, type_ = _filters(websocket.query_params, backend)
        if after is not None:
            await backend.events(after, 1, None, None)  # a stream would wait for ever at a cursor that never was
    except (RefusedError, CursorGoneError) as error:
        code = error.code if isinstance(error, RefusedError) else "cursor"
        await _say(websocket, {"kind": "error", "code": code, "text": str(error)})
        await websocket.close(UNSUPPORTED)
        return
    start = after if after is not None else backend.here()
    lock = anyio.Lock()
    farewell = NORMAL

    async def send(message: dict[str, Any]) -> None:
        async with lock:
            await _say(websocket, message)

    with backend.follow(start, phase=phase, type_=type_) as events:
        status = backend.status().as_json()
        try:
            await send({"kind": "snapshot", "cursor": str(start), "status": status})
            async with anyio.create_task_group() as group:
                group.start_soon(_watch_status, send, backend, status)
                group.start_soon(_hear, websocket)
                try:
                    async for batch in events.batches():
                        shown = [event.as_json() for event in batch]
                        await send({"kind": "events", "cursor": str(events.cursor), "events": shown})
                except CursorGoneError as error:
                    await send({"kind": "error", "code": "cursor", "text": str(error)})
                group.cancel_scope.cancel()
        except* TimeoutError:
            farewell = TRY_AGAIN_LATER
        except* WebSocketDisconnect:
            farewell = 0
    if farewell:
        with anyio.move_on_after(1.0):  # one that does not read may not hear the goodbye either
            await websocket.close(farewell)


async def _say(websocket: WebSocket, message: dict[str, Any]) -> None:
    """Send it; TimeoutError when the client has not taken it in for so long."""
    with anyio.fail_after(SLOW):
        await websocket.send_json(message)


async def _watch_status(
    send: Callable[[dict[str, Any]], Awaitable[None]], backend: Backend, before: dict[str, Any]
) -> None:
    while True:
        await anyio.sleep(STATUS_EVERY)
        now = backend.status().as_json()
        if now != before:
            before = now
            await send({"kind": "status", "status": now})


async def _hear(websocket: WebSocket) -> None:
    """Nothing that a client says is needed; that it has gone is."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    raise WebSocketDisconnect


# --- the table

_CURSOR = Parameter(name="after", text="Only what came after this cursor; none: from the oldest.")
_FILTERS = (
    Parameter(name="phase", text="Only this phase's, or `supervisor` for what the supervisor says."),
    Parameter(name="type", text="Only events of this type."),
)
ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        method="GET", path="/api/status", summary="What each phase is doing", handler=_status, answer=shapes.StatusOut
    ),
    Endpoint(
        method="GET",
        path="/api/events",
        summary="What happened, oldest first; as a WebSocket: a snapshot, then events as they come",
        handler=_events,
        answer=shapes.EventsOut,
        parameters=(
            _CURSOR,
            Parameter(
                name="limit",
                text="At most so many.",
                schema={"type": "integer", "minimum": 1, "maximum": MOST_EVENTS, "default": 100},
            ),
            Parameter(
                name="last",
                text="Only the last so many, instead of what follows a cursor.",
                schema={"type": "integer", "minimum": 1, "maximum": MOST_EVENTS},
            ),
            *_FILTERS,
        ),
        refusals=(404, 410, 422),
    ),
    Endpoint(
        method="GET",
        path="/api/documents",
        summary="The documents, and which record last touched each",
        handler=_documents,
        answer=shapes.DocumentsOut,
    ),
    Endpoint(
        method="GET",
        path="/api/documents/{name}",
        summary="One document as it is on record",
        handler=_document,
        answer=shapes.DocumentTextOut,
        parameters=(Parameter(name="name", text="Such as QA_READ.", within="path"),),
        refusals=(404,),
    ),
    Endpoint(
        method="GET",
        path="/api/why/{phase}",
        summary="Every start, restart, verdict and give-up of a phase, with its inputs",
        handler=_why,
        answer=shapes.WhyOut,
        parameters=(Parameter(name="phase", text="Such as developer.", within="path"),),
        refusals=(404,),
    ),
    Endpoint(
        method="GET",
        path="/api/rollout/status",
        summary="How far the move to the queue has come, and how audits fare in each mode",
        handler=_rollout,
        answer=shapes.RolloutOut,
    ),
    Endpoint(
        method="GET", path="/api/inbox", summary="What waits for the user", handler=_inbox, answer=shapes.InboxOut
    ),
    Endpoint(
        method="POST",
        path="/api/answer",
        summary="Answer what waits",
        handler=_answer,
        answer=shapes.ReplyOut,
        body=shapes.AnswerBody,
        refusals=(409, 422),
    ),
    *(
        Endpoint(
            method="POST",
            path=f"/api/commands/{name}",
            summary=summary,
            handler=handler,
            answer=shapes.ReplyOut,
            body=body,
            refusals=(404, 409, 422),
        )
        for name, summary, handler, body in (
            ("stop", "End the run in good order", _stop, shapes.Nothing),
            (
                "restart",
                "A new worker for a phase, its past forgotten; or for all, one after the other",
                _restart,
                shapes.RestartBody,
            ),
            ("reload", "Read supervisor.toml again; only what changed is touched", _reload, shapes.Nothing),
            ("pause", "Finish what is in hand, begin nothing new", _pause, shapes.HoldBody),
            ("resume", "Let it go on", _resume, shapes.HoldBody),
            ("task", "Give the crew a task, in the user's name", _task, shapes.TaskBody),
        )
    ),
    Endpoint(method="GET", path="/metrics", summary="Figures for Prometheus", handler=_metrics, answer="text/plain"),
    Endpoint(
        method="GET",
        path="/openapi.json",
        summary="This description",
        handler=_openapi,
        answer="application/json",
    ),
)
