"""What the control API answers: shapes, commands, the stream with its snapshot, and the document that describes it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ipc.events import ProgressEvent
from supervisor.commands import AnswerIt, GiveTask, Hold, Reload, Reply, RestartAll, RestartPhase, StopCrew
from supervisor.control import app as module
from supervisor.control import shapes
from supervisor.control.app import ENDPOINTS, make_app
from supervisor.control.openapi import document
from supervisor.control.server import serving
from supervisor.workspace import Workspace
from tests.supervisor.control_fakes import FakeBackend

pytestmark = pytest.mark.anyio
HEADERS = {"Authorization": "Bearer t", "Host": "127.0.0.1:1"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def backend(tmp_path: Path, anyio_backend: str) -> AsyncIterator[FakeBackend]:
    made = FakeBackend.over(tmp_path)
    with made.journal:
        yield made


@pytest.fixture
async def client(backend: FakeBackend) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(backend, port=1, token="t"), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=HEADERS) as made:
        yield made


def event(type_: str, phase: str = "qa", **more: Any) -> ProgressEvent:
    return ProgressEvent(type=type_, phase=phase, **more)


# --- looking


async def test_every_get_answers_in_the_shape_that_it_declares(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    """Each endpoint of the table is asked, and its answer converts to its shape without a key missing."""
    await backend.add(event("log_entry", "supervisor", step="mode", detail="queue"), event("finding", data=b"png"))
    seen = 0
    for point in ENDPOINTS:
        if point.method != "GET":
            continue
        answer = await client.get(point.path.format(name="QA_READ", phase="qa"))
        assert answer.status_code == 200, point.path
        if isinstance(point.answer, str):
            assert answer.headers["content-type"].startswith(point.answer)
        else:
            msgspec.convert(answer.json(), point.answer, strict=True)
        seen += 1
    assert seen >= 8


async def test_events_come_in_pages_that_join(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    """Following `cursor` while there is `more` shows each event once; filters hold."""
    await backend.add(*(event("finding" if n % 3 else "phase_start", detail=str(n)) for n in range(25)))
    seen: list[str] = []
    query: dict[str, str] = {"limit": "10"}
    while True:
        page = (await client.get("/api/events", params=query)).json()
        seen += [one["detail"] for one in page["events"]]
        query["after"] = page["cursor"]
        if not page["more"]:
            break
    assert seen == [str(n) for n in range(25)]
    filtered = (await client.get("/api/events", params={"type": "phase_start", "phase": "QA"})).json()
    assert [one["detail"] for one in filtered["events"]] == [str(n) for n in range(0, 25, 3)]


async def test_the_last_events_can_be_asked_for(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    """As many as there are, if fewer; the cursor is where the stream goes on."""
    await backend.add(*(event("finding", detail=str(n)) for n in range(5)))
    assert [one["detail"] for one in (await client.get("/api/events?last=2")).json()["events"]] == ["3", "4"]
    everything = (await client.get("/api/events?last=1000")).json()
    assert [one["detail"] for one in everything["events"]] == list("01234")
    assert everything["cursor"] == str(backend.here())


async def test_the_dashboard_needs_no_token_and_may_load_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """Only to look: a post is refused as ever; its policy keeps it from frames, inline scripts and other hosts."""
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        page = await client.get(path, headers={"Authorization": ""})
        assert page.status_code == 200
        assert page.headers["content-type"].startswith(kind)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http://" not in page.text.replace("`http://", "")
    assert (await client.post("/", headers={"Authorization": ""})).status_code == 401
    assert (await client.get("/page.js/../../api/status", headers={"Authorization": ""})).status_code == 401


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/events?last=0", 422, "last"),
        ("/api/events?after=nonsense", 422, "cursor"),
        ("/api/events?after=other:7", 410, "cursor"),
        ("/api/events?limit=0", 422, "limit"),
        ("/api/events?limit=1001", 422, "limit"),
        ("/api/events?limit=²", 422, "limit"),
        ("/api/events?phase=nobody", 404, "phase"),
        ("/api/why/nobody", 404, "phase"),
        ("/api/documents/NOTHING", 404, "document"),
        ("/api/nothing", 404, "http"),
        ("/api/commands/stop", 405, "http"),
    ],
)
async def test_a_wrong_question_is_answered_with_what_is_wrong(
    client: httpx.AsyncClient, path: str, status: int, code: str
) -> None:
    """A status, a word for programs, a sentence for people."""
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_an_error_of_ours_tells_a_client_nothing_of_the_inside(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    """500 with the kind of error; its text stays in the log."""
    backend.broken = True
    answer = await client.get("/api/status")
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_metrics_can_be_scraped(client: httpx.AsyncClient) -> None:
    """The page parses, and says what the status says."""
    from prometheus_client.parser import text_string_to_metric_families

    page = (await client.get("/metrics")).text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["phase_supervisor_phase_state", (("phase", "qa"), ("state", "ready"))] == 1
    assert samples["phase_supervisor_phase_state", (("phase", "qa"), ("state", "working"))] == 0
    assert samples["phase_supervisor_events_total", (("outcome", "stored"),)] == 7
    assert samples["phase_supervisor_queue_refused_total", (("what", "handshakes"),)] == 2
    assert ("phase_supervisor_events_total", (("outcome", "refused_handshakes"),)) not in samples
    assert samples["phase_supervisor_bytes_total", ()] == 1500
    assert ("phase_supervisor_events_total", (("outcome", "bytes"),)) not in samples, "a sum of events is no sum then"
    assert samples["phase_supervisor_queue_depth", ()] == 3
    assert samples["phase_supervisor_commit_latency_seconds_bucket", (("le", "0.01"),)] == 3
    assert samples["phase_supervisor_commit_latency_seconds_bucket", (("le", "+Inf"),)] == 4
    assert samples["phase_supervisor_worker_events_total", (("outcome", "stored"), ("worker", "qa"))] == 4
    assert samples["phase_supervisor_worker_events_total", (("outcome", "stored"), ("worker", "developer"))] == 3
    assert samples["phase_supervisor_worker_bytes_total", (("worker", "qa"),)] == 900
    assert samples["phase_supervisor_worker_queue_depth", (("worker", "qa"),)] == 2
    bucket = "phase_supervisor_worker_commit_latency_seconds_bucket"
    assert [samples[bucket, (("le", le), ("worker", "qa"))] for le in ("0.001", "0.01", "+Inf")] == [1, 3, 4]


# --- commands


@pytest.mark.parametrize(
    ("path", "body", "command"),
    [
        ("/api/commands/stop", None, StopCrew()),
        ("/api/commands/restart", {"phase": "QA"}, RestartPhase(phase="qa")),
        ("/api/commands/restart", {"all": True}, RestartAll()),
        ("/api/commands/reload", {}, Reload()),
        ("/api/commands/pause", {}, Hold(paused=True)),
        ("/api/commands/resume", {"phase": "qa"}, Hold(phases=("qa",), paused=False)),
        ("/api/answer", {"id": "abc", "text": "yes"}, AnswerIt(id="abc", text="yes")),
    ],
)
async def test_a_command_arrives_as_it_was_meant(
    client: httpx.AsyncClient, backend: FakeBackend, path: str, body: Any, command: Any
) -> None:
    """And its reply comes back."""
    backend.reply = Reply(ok=True, text="so be it", data={"n": 1})
    answer = await client.post(path, json=body) if body is not None else await client.post(path)
    assert answer.status_code == 200
    assert answer.json() == {"ok": True, "text": "so be it", "data": {"n": 1}}
    assert backend.asked == [command]


async def test_a_task_is_taken_for_what_its_words_say(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    """A kind at its beginning, else what the phase usually gets."""
    await client.post("/api/commands/task", json={"text": "Issue: it fails", "to": "debugging", "priority": "high"})
    await client.post("/api/commands/task", json={"text": "look around"})
    first, second = backend.asked
    assert isinstance(first, GiveTask)
    assert isinstance(second, GiveTask)
    assert (first.draft.kind, first.draft.text, first.draft.priority) == ("Issue", "it fails", "HIGH")
    assert (second.draft.to, second.draft.kind) == ("planning", "Assess")


async def test_a_refused_command_is_a_conflict(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    """409 with the sentence."""
    backend.reply = Reply(ok=False, text="qa is being restarted already")
    answer = await client.post("/api/commands/restart", json={"phase": "qa"})
    assert (answer.status_code, answer.json()["text"]) == (409, "qa is being restarted already")


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/api/commands/restart", b"{}"),
        ("/api/commands/restart", b'{"phase": 1}'),
        ("/api/commands/restart", b'{"phase": "qa", "all": true}'),
        ("/api/commands/restart", b"not json"),
        ("/api/commands/restart", b'{"phase": "qa", "force": true}'),
        ("/api/commands/stop", b'{"now": true}'),
        ("/api/commands/task", b'{"text": "  "}'),
        ("/api/commands/task", b'{"text": "x", "priority": "URGENT"}'),
        ("/api/commands/task", b'{"text": "\xff"}'),
    ],
)
async def test_a_body_that_is_not_meant_so_does_nothing(
    client: httpx.AsyncClient, backend: FakeBackend, path: str, raw: bytes
) -> None:
    """422 and no command."""
    answer = await client.post(path, content=raw)
    assert answer.status_code == 422
    assert backend.asked == []


# --- the description


async def test_the_openapi_document_describes_what_is_there(client: httpx.AsyncClient) -> None:
    """Every endpoint with its method, parameters and shapes; every reference leads to a schema; ids are unique."""
    served = (await client.get("/openapi.json")).json()
    assert served == json.loads(json.dumps(document(ENDPOINTS)))
    assert served["openapi"].startswith("3.1")
    assert {(path, method) for path, methods in served["paths"].items() for method in methods} == {
        (point.path, point.method.lower()) for point in ENDPOINTS
    }
    references = set(_references(served))
    assert references
    assert {ref.removeprefix("#/components/schemas/") for ref in references} <= served["components"]["schemas"].keys()
    operations = [operation for methods in served["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(ENDPOINTS)
    for point in ENDPOINTS:
        operation = served["paths"][point.path][point.method.lower()]
        named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        assert all(f"{{{name}}}" in point.path for name in named)
        assert point.path.count("{") == len(named)
        assert {"200", "401", "403", "421"} <= operation["responses"].keys()
    assert served["components"]["schemas"]["AnswerBody"]["required"] == ["id", "text"]
    assert served["components"]["schemas"]["RestartBody"]["additionalProperties"] is False


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return [*here, *(ref for inner in value.values() for ref in _references(inner))]
    return [ref for inner in value for ref in _references(inner)] if isinstance(value, list) else []


async def test_a_status_has_no_key_that_is_not_described(client: httpx.AsyncClient) -> None:
    """What the status holds more than its shape would be undocumented."""
    said = (await client.get("/api/status")).json()
    known = {field.name for field in msgspec.structs.fields(shapes.PhaseOut)}
    assert set(said["phases"]["qa"]) <= known
    assert set(said) <= {field.name for field in msgspec.structs.fields(shapes.StatusOut)}


def test_the_page_on_the_api_names_every_endpoint() -> None:
    """And no other."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "control-api.md").read_text("utf-8")
    named = set(re.findall(r"`(?:GET )?(/(?:api/[a-z/{}]+|metrics|openapi\.json))`", page))
    assert named == {point.path for point in ENDPOINTS}


# --- the stream


@pytest.fixture
async def port_and_token(backend: FakeBackend, tmp_path: Path) -> AsyncIterator[tuple[int, str]]:
    async with serving(backend, Workspace(tmp_path), tmp_path / "endpoint.json") as endpoint:
        yield endpoint.port, endpoint.token
        backend.hub.close()


def watch(port_and_token: tuple[int, str], query: str = "", **more: Any) -> connect:
    port, token = port_and_token
    headers = {"Authorization": f"Bearer {token}"}
    return connect(f"ws://127.0.0.1:{port}/api/events{query}", additional_headers=headers, proxy=None, **more)


async def said(websocket: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await websocket.recv())
    return found


async def test_the_snapshot_comes_first_and_then_what_follows_it(
    backend: FakeBackend, port_and_token: tuple[int, str]
) -> None:
    """Nothing between the snapshot's cursor and the first event is missed, nothing before it is repeated."""
    await backend.add(event("phase_start", detail="before"))
    async with watch(port_and_token) as websocket:
        snapshot = await said(websocket)
        assert (snapshot["kind"], snapshot["status"]["pid"]) == ("snapshot", 4711)
        assert snapshot["cursor"] == str(backend.here())
        await backend.add(event("finding", detail="after"))
        batch = await said(websocket)
        assert [one["detail"] for one in batch["events"]] == ["after"]


async def test_a_client_that_comes_back_with_its_cursor_misses_nothing(
    backend: FakeBackend, port_and_token: tuple[int, str]
) -> None:
    """What happened while it was away comes first."""
    await backend.add(event("phase_start"))
    async with watch(port_and_token) as websocket:
        cursor = (await said(websocket))["cursor"]
    await backend.add(*(event("finding", detail=str(n)) for n in range(700)))
    seen: list[str] = []
    async with watch(port_and_token, f"?after={cursor}&type=finding") as websocket:
        assert (await said(websocket))["kind"] == "snapshot"
        while len(seen) < 700:
            seen += [one["detail"] for one in (await said(websocket))["events"]]
    assert seen == [str(n) for n in range(700)]


async def test_a_change_of_the_status_is_told(backend: FakeBackend, port_and_token: tuple[int, str]) -> None:
    """Without any event."""
    async with watch(port_and_token) as websocket:
        await said(websocket)
        backend.becomes(queue_depth=900)
        told = await said(websocket)
    assert (told["kind"], told["status"]["queue"]["depth"]) == ("status", 900)


@pytest.mark.parametrize(("query", "code"), [("?after=nonsense", "cursor"), ("?after=other:5", "cursor")])
async def test_a_cursor_that_leads_nowhere_is_said_so(port_and_token: tuple[int, str], query: str, code: str) -> None:
    """As a message, and then the stream ends."""
    async with watch(port_and_token, query) as websocket:
        message = await said(websocket)
        assert (message["kind"], message["code"]) == ("error", code)
        with pytest.raises(ConnectionClosed):
            await said(websocket)


async def test_a_client_that_does_not_read_is_cut(
    backend: FakeBackend, port_and_token: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loses its stream, nobody else anything; the subscription is gone."""
    monkeypatch.setattr(module, "SLOW", 0.3)
    port, token = port_and_token
    reader = socket.create_connection(("127.0.0.1", port))
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lines = [
        "GET /api/events HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {token}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    with reader:
        await asyncio.to_thread(reader.sendall, ("\r\n".join(lines) + "\r\n\r\n").encode())
        while backend.hub.statistics().subscribers == 0:  # noqa: ASYNC110 - nothing tells of its beginning
            await anyio.sleep(0.01)
        with anyio.fail_after(15):
            while backend.hub.statistics().subscribers:
                await backend.add(*(event("finding", data=b"x" * 200_000) for _ in range(10)))
                await anyio.sleep(0.01)
    async with watch(port_and_token) as websocket:
        assert (await said(websocket))["kind"] == "snapshot"


async def test_a_client_that_goes_leaves_nothing_behind(backend: FakeBackend, port_and_token: tuple[int, str]) -> None:
    """Its subscription ends with its connection."""
    async with watch(port_and_token) as websocket:
        await said(websocket)
        assert backend.hub.statistics().subscribers == 1
    with anyio.fail_after(10):
        while backend.hub.statistics().subscribers:  # noqa: ASYNC110 - nothing tells of its end
            await anyio.sleep(0.01)
