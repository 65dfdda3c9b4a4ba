"""Who may enter: Host, Origin and token of every request, and how large its body may be, before anything else sees it.

A pure ASGI layer, because a WebSocket is what a hostile page reaches most easily and ready-made middlewares look at
http only. A page elsewhere is refused by its Origin, one that has rebound its name to 127.0.0.1 by its Host, everybody
who cannot read the user's private file by the token. The dashboard's own files hold nothing and are shown without a
token: a browser that opens a page can send none.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY = 256 * 1024  # bytes; a message's text is at most 64 KiB
PROTOCOL = "phase-supervisor.v1"  # what a browser's WebSocket asks for, beside the token
BEARER = "bearer."  # begins the subprotocol that carries a browser's token
_HARDENING = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let in: the http status, a word for programs, a sentence for people."""

    status: int
    code: str
    text: str


class BodyTooLargeError(Exception):
    """More came than was announced or is allowed."""


def judged(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    websocket: bool,
    port: int,
    token: str,
    most_body: int = MOST_BODY,
    public: bool = False,
) -> Refusal | None:
    """What is wrong with a request's headers (names in lower case); None if it may enter.

    `public` asks for something that holds no secret: no token is needed, and a link elsewhere may lead to it.
    """
    given: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        given.setdefault(name.lower(), []).append(value)
    ours = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}
    host = given.get(b"host", [])
    if len(host) != 1 or host[0].lower() not in ours:
        return Refusal(421, "host", "this address is not one of ours; use the one in the endpoint file")
    origins = {b"http://" + name for name in ours}
    if any(origin.lower() not in origins for origin in given.get(b"origin", [])):
        return Refusal(403, "origin", "requests of other pages are not answered")
    opened = public and given.get(b"sec-fetch-dest") == [b"document"]  # as a page of its own, by a link or a file
    if not opened and any(site.lower() not in {b"same-origin", b"none"} for site in given.get(b"sec-fetch-site", [])):
        return Refusal(403, "origin", "requests of other pages are not answered")
    if not public and not any(
        hmac.compare_digest(said, token.encode()) for said in _tokens(given, websocket=websocket)
    ):
        return Refusal(401, "token", "the token is missing or wrong; it is in the endpoint file, and new in each run")
    for length in given.get(b"content-length", []):
        if not length.isdigit() or int(length) > most_body:
            return Refusal(413, "body", f"a request may hold at most {most_body} bytes")
    return None


def _tokens(given: dict[bytes, list[bytes]], *, websocket: bool) -> list[bytes]:
    """What was given as the token: one header, or, where a browser can set none, a WebSocket's subprotocol."""
    found = []
    if len(authorization := given.get(b"authorization", [])) == 1:
        scheme, _, value = authorization[0].partition(b" ")
        if scheme.lower() == b"bearer":
            found.append(value.strip())
    if websocket:
        asked = b",".join(given.get(b"sec-websocket-protocol", []))
        words = [word.strip() for word in asked.split(b",")]
        found += [word.removeprefix(BEARER.encode()) for word in words if word.startswith(BEARER.encode())]
    return found


class Guard:
    """Lets a request through to `app`, or answers it."""

    def __init__(
        self,
        app: App,
        *,
        port: int,
        token: str,
        most_body: int = MOST_BODY,
        public: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._public = public
        self._port = port
        self._token = token
        self._most_body = most_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            raise RuntimeError(f"the control API takes http and websocket, not {scope['type']}")
        websocket = scope["type"] == "websocket"
        refusal = judged(
            scope["headers"],
            websocket=websocket,
            port=self._port,
            token=self._token,
            most_body=self._most_body,
            public=not websocket and scope["method"] in {"GET", "HEAD"} and scope["path"] in self._public,
        )
        if websocket:
            if refusal is not None:
                await receive()  # websocket.connect
                await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
                return
            await self._app(scope, receive, send)
            return
        if refusal is not None:
            await refuse(send, refusal)
            return
        await self._limited(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A body that comes in chunks is counted as it comes."""
        taken = 0
        begun = too_large = False

        async def counted() -> Message:
            nonlocal taken, too_large
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most_body:
                too_large = True
                raise BodyTooLargeError
            return message

        async def hardened(message: Message) -> None:
            nonlocal begun
            if too_large and not begun:
                return  # whatever the application makes of it, the answer is ours
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", ()), *_HARDENING]}
            await send(message)

        try:
            await self._app(scope, counted, hardened)
        except BodyTooLargeError:
            if not begun:
                await refuse(send, Refusal(413, "body", f"a request may hold at most {self._most_body} bytes"))


async def refuse(send: Send, refusal: Refusal) -> None:
    """Answer with the refusal as JSON; the connection ends, since the body may still be coming."""
    body = json.dumps({"error": {"code": refusal.code, "text": refusal.text}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *((((b"www-authenticate", b"Bearer"),)) if refusal.status == 401 else ()),
        *_HARDENING,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
