"""Who may enter the control API: judged on headers alone, and shown against a real server, http and WebSocket."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from supervisor.control.endpoint import FORMAT, Endpoint, door, endpoint_file, load, publish, require_known, withdraw
from supervisor.control.guard import BEARER, MOST_BODY, PROTOCOL, judged
from supervisor.control.server import serving
from supervisor.workspace import NewerFormatError, Workspace
from tests.supervisor.control_fakes import FakeBackend

PORT, TOKEN = 4567, "the-right-token"
GOOD = [(b"host", b"127.0.0.1:4567"), (b"authorization", b"Bearer the-right-token")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def verdict(*headers: tuple[bytes, bytes], websocket: bool = False) -> int | None:
    refusal = judged(headers, websocket=websocket, port=PORT, token=TOKEN)
    return refusal.status if refusal else None


@pytest.mark.parametrize("websocket", [False, True])
def test_the_right_token_on_the_right_host_enters(*, websocket: bool) -> None:
    """By either of our names, with our own Origin or none."""
    assert verdict(*GOOD, websocket=websocket) is None
    assert verdict((b"host", b"localhost:4567"), GOOD[1], websocket=websocket) is None
    assert verdict(*GOOD, (b"origin", b"http://127.0.0.1:4567"), websocket=websocket) is None
    assert verdict(*GOOD, (b"sec-fetch-site", b"same-origin"), websocket=websocket) is None


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([GOOD[0]], 401),
        ([GOOD[0], (b"authorization", b"Bearer wrong")], 401),
        ([GOOD[0], (b"authorization", b"Bearer ")], 401),
        ([GOOD[0], (b"authorization", b"Basic the-right-token")], 401),
        ([GOOD[0], GOOD[1], GOOD[1]], 401),
        ([GOOD[1]], 421),
        ([(b"host", b"evil.example:4567"), GOOD[1]], 421),
        ([(b"host", b"127.0.0.1"), GOOD[1]], 421),
        ([(b"host", b"127.0.0.1:4568"), GOOD[1]], 421),
        ([(b"host", b"127.0.0.1:4567.evil.example"), GOOD[1]], 421),
        ([*GOOD, (b"host", b"evil.example")], 421),
        ([*GOOD, (b"origin", b"http://evil.example")], 403),
        ([*GOOD, (b"origin", b"null")], 403),
        ([*GOOD, (b"origin", b"https://127.0.0.1:4567")], 403),
        ([*GOOD, (b"origin", b"http://127.0.0.1:4568")], 403),
        ([*GOOD, (b"sec-fetch-site", b"cross-site")], 403),
        ([*GOOD, (b"content-length", str(MOST_BODY + 1).encode())], 413),
        ([*GOOD, (b"content-length", b"-1")], 413),
    ],
)
def test_everything_else_is_refused(headers: list[tuple[bytes, bytes]], status: int, *, websocket: bool) -> None:
    """Missing, doubled, nearly right: each has its status."""
    assert verdict(*headers, websocket=websocket) == status


def test_a_browsers_websocket_may_bring_its_token_as_a_subprotocol() -> None:
    """Where no header can be set; for http the same header opens nothing."""
    asked = (b"sec-websocket-protocol", f"{PROTOCOL}, {BEARER}{TOKEN}".encode())
    assert verdict(GOOD[0], asked, websocket=True) is None
    assert verdict(GOOD[0], asked, websocket=False) == 401
    wrong = (b"sec-websocket-protocol", f"{PROTOCOL}, {BEARER}wrong".encode())
    assert verdict(GOOD[0], wrong, websocket=True) == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([GOOD[0]], None),
        ([GOOD[0], (b"sec-fetch-site", b"none"), (b"sec-fetch-dest", b"document")], None),
        ([GOOD[0], (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"document")], None),
        ([GOOD[0], (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"iframe")], 403),
        ([GOOD[0], (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"script")], 403),
        ([GOOD[0], (b"origin", b"http://evil.example")], 403),
        ([(b"host", b"evil.example:4567")], 421),
    ],
)
def test_a_page_without_secrets_may_be_opened_and_not_embedded(
    headers: list[tuple[bytes, bytes]], status: int | None
) -> None:
    """No token is needed, a link or a private file may lead there; no frame, no script tag, no foreign name."""
    refusal = judged(headers, websocket=False, port=PORT, token=TOKEN, public=True)
    assert (refusal.status if refusal else None) == status


# --- the endpoint file


def test_the_endpoint_file_is_private_and_goes_only_with_its_own_run(tmp_path: Path) -> None:
    """0600, named by the workspace; a successor's file is left alone by its predecessor."""
    path = endpoint_file(Workspace(tmp_path / "a"), tmp_path)
    assert path != endpoint_file(Workspace(tmp_path / "b"), tmp_path)
    old = Endpoint(pid=1, port=2, token="x", workspace="a")
    new = Endpoint(pid=3, port=4, token="y", workspace="a")
    publish(path, old)
    assert load(path) == old
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    publish(path, new)
    withdraw(path, old)
    assert load(path) == new
    withdraw(path, new)
    assert load(path) is None


def test_the_door_to_the_dashboard_is_private_and_goes_with_the_run(tmp_path: Path) -> None:
    """It holds the token, which is nowhere else than behind the #."""
    path = endpoint_file(Workspace(tmp_path / "a"), tmp_path)
    endpoint = Endpoint(pid=1, port=2, token="x", workspace="a")
    publish(path, endpoint)
    page = door(path, endpoint)
    assert "http://127.0.0.1:2/#token=x" in page.read_text()
    if sys.platform != "win32":
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
    withdraw(path, endpoint)
    assert not page.exists()


def test_a_damaged_endpoint_file_is_none_and_a_newer_one_is_told(tmp_path: Path) -> None:
    """Whoever reads it gets an answer; whoever would ask a newer release's API is told so."""
    path = tmp_path / "e.json"
    for text in ("", "[]", "{}", '{"pid": 1, "port": "x"}'):
        path.write_text(text)
        assert load(path) is None
    newer = Endpoint(pid=1, port=2, token="x", workspace="a", format=FORMAT + 1)
    publish(path, newer)
    assert load(path) == newer
    with pytest.raises(NewerFormatError, match=f"format {FORMAT + 1}; this one knows {FORMAT}"):
        require_known(newer)
    withdraw(path, newer)
    assert load(path) is None


# --- a real server


class Api:
    """A served API, and ways to ask it rightly and wrongly."""

    def __init__(self, endpoint: Endpoint, backend: FakeBackend) -> None:
        self.endpoint = endpoint
        self.backend = backend
        self.right = {"Authorization": f"Bearer {endpoint.token}"}

    async def ask(self, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        headers = more.pop("headers", self.right)
        async with httpx.AsyncClient(base_url=self.endpoint.url, trust_env=False) as client:
            return await client.request(method, path, headers=headers, **more)

    def connect(self, headers: dict[str, str], **more: Any) -> Any:
        url = f"ws://127.0.0.1:{self.endpoint.port}/api/events"
        return connect(url, additional_headers=headers, proxy=None, **more)


@pytest.fixture
async def api(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Api]:
    backend = FakeBackend.over(tmp_path)
    with backend.journal:
        async with serving(backend, Workspace(tmp_path), tmp_path / "endpoint.json") as endpoint:
            assert load(tmp_path / "endpoint.json") == endpoint
            yield Api(endpoint, backend)
            backend.hub.close()
    assert load(tmp_path / "endpoint.json") is None


WRONG = [
    ({}, 401),
    ({"Authorization": "Bearer wrong"}, 401),
    ({"Origin": "http://evil.example"}, 403),
    ({"Host": "evil.example"}, 421),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("wrong", "status"), WRONG)
async def test_a_wrong_request_reaches_nothing(api: Api, wrong: dict[str, str], status: int) -> None:
    """No token, a wrong one, a page elsewhere, a rebound name: no command arrives, whatever the path."""
    headers = wrong if status == 401 else {**api.right, **wrong}
    for method, path in (
        ("POST", "/api/commands/stop"),
        ("GET", "/api/status"),
        ("GET", "/nowhere"),
        ("GET", "/metrics"),
    ):
        answer = await api.ask(path, method, headers=headers)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"code", "text"}
    assert api.backend.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize(("wrong", "status"), WRONG)
async def test_a_wrong_websocket_is_not_accepted(api: Api, wrong: dict[str, str], status: int) -> None:
    """The same on the WebSocket: the handshake fails and nothing is subscribed."""
    headers = wrong if status == 401 else {**api.right, **wrong}
    if "Host" in wrong:  # the client writes a Host of its own: say it ourselves
        assert b" 403 " in await _raw_handshake(api, headers)
        return
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with api.connect(headers):
            pass
    assert refused.value.response.status_code == 403
    assert api.backend.hub.statistics().subscribers == 0


async def _raw_handshake(api: Api, headers: dict[str, str]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.endpoint.port)
    lines = [
        "GET /api/events HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    first = await reader.readline()
    writer.close()
    return first


@pytest.mark.anyio
async def test_a_right_handshake_is_accepted_by_header_and_by_subprotocol(api: Api) -> None:
    """The same raw request that is refused with a forged Host gets through with ours; a browser's token too."""
    host = {"Host": f"127.0.0.1:{api.endpoint.port}"}
    assert b" 101 " in await _raw_handshake(api, {**api.right, **host})
    asked = [PROTOCOL, BEARER + api.endpoint.token]
    async with api.connect({}, subprotocols=asked) as websocket:
        assert websocket.subprotocol == PROTOCOL
        assert '"snapshot"' in await websocket.recv()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    [
        "/api/documents/..%2f..%2fsupervisor.toml",
        "/api/documents/%2fetc%2fpasswd",
        "/api/documents/../../../etc/passwd",
        "/api/documents/QA_READ%00.md",
        "/api/documents/..",
        "/api/documents/crew%5cQA_READ",
    ],
)
async def test_a_document_is_a_name_and_never_a_path(api: Api, path: str) -> None:
    """What is no document's name is not found, and nothing is read for it."""
    answer = await api.ask(path)
    assert answer.status_code == 404
    assert api.backend.read == []


@pytest.mark.anyio
async def test_an_oversized_body_is_refused_announced_or_not(api: Api) -> None:
    """413 for a length that is too large, and for chunks that become so; the next request is fine."""
    large = b'{"text": "' + b"x" * MOST_BODY + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 4096):
            yield large[at : at + 4096]

    for content in (large, chunks()):
        try:
            answer = await api.ask("/api/commands/task", "POST", content=content)
        except httpx.WriteError:  # refused, and closed, while we were still sending
            continue
        assert answer.status_code == 413
    assert api.backend.asked == []
    assert (await api.ask("/api/status")).status_code == 200


@pytest.mark.anyio
async def test_answers_are_kept_by_nobody(api: Api) -> None:
    """Not by a cache, and no type is guessed; our server is not named."""
    answer = await api.ask("/api/status")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
