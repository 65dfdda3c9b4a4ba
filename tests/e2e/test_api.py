"""The control API of a real crew, asked as a program would: by http and WebSocket, with and without the right to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from supervisor.control.endpoint import Endpoint, endpoint_file, load
from supervisor.workspace import Workspace, runtime_folder
from tests.e2e.conftest import LIMIT, Shop

pytestmark = [pytest.mark.timeout(200)]

STRANGERS: dict[str, tuple[dict[str, str], int]] = {
    "no token": ({}, 401),
    "a wrong token": ({"Authorization": "Bearer guessed"}, 401),
    "a page elsewhere": ({"Authorization": "Bearer {token}", "Origin": "http://evil.example"}, 403),
    "a name that was bound again": ({"Authorization": "Bearer {token}", "Host": "evil.example:{port}"}, 421),
}


@pytest.fixture
def api(shop: Shop) -> Iterator[tuple[Shop, Endpoint]]:
    """A crew in the background and where it listens; ended however the test went."""
    shop.say("start")
    try:
        endpoint = load(endpoint_file(Workspace(shop.root), runtime_folder(shop.environ)))
        assert endpoint is not None
        yield shop, endpoint
    finally:
        shop.tries("stop")


def client(endpoint: Endpoint) -> httpx.Client:
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    return httpx.Client(base_url=endpoint.url, headers=headers, trust_env=False, timeout=LIMIT)


def stream(endpoint: Endpoint, query: str, headers: dict[str, str]) -> Any:
    url = f"ws://127.0.0.1:{endpoint.port}/api/events{query}"
    return connect(url, additional_headers=headers, proxy=None, open_timeout=LIMIT)


def test_strangers_get_nothing_and_change_nothing(api: tuple[Shop, Endpoint]) -> None:
    """Whoever has no token, or comes from another page or name, is refused on both: by the crew that really runs."""
    shop, endpoint = api
    pids = {key: phase["pid"] for key, phase in shop.ask("status")["phases"].items()}
    for who, (told, status) in STRANGERS.items():
        headers = {name: text.format(token=endpoint.token, port=endpoint.port) for name, text in told.items()}
        with httpx.Client(base_url=endpoint.url, headers=headers, trust_env=False, timeout=LIMIT) as asking:
            for path in ("/api/status", "/api/events", "/metrics", "/api/documents/QA_READ"):
                assert asking.get(path).status_code == status, (who, path)
            assert asking.post("/api/commands/restart", json={"all": True}).status_code == status, who
        if "Host" not in headers:  # the library sets its own; tests/supervisor/test_control_guard.py sends another
            with pytest.raises(InvalidStatus), stream(endpoint, "", headers):
                pass
    assert {key: phase["pid"] for key, phase in shop.ask("status")["phases"].items()} == pids


def test_whoever_comes_back_with_a_cursor_gets_each_event_once(api: tuple[Shop, Endpoint]) -> None:
    """The snapshot comes first; away while all workers are replaced and back by cursor, nothing is missed."""
    _, endpoint = api
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    with stream(endpoint, "", headers) as first:
        snapshot = json.loads(first.recv(LIMIT))
    assert snapshot["kind"] == "snapshot"
    assert set(snapshot["status"]["phases"]) == {"planning", "developer", "qa", "debugging"}
    with client(endpoint) as asking:
        reply = asking.post("/api/commands/restart", json={"all": True})
        assert (reply.status_code, reply.json()["ok"]) == (200, True), reply.text
        seen: list[dict[str, Any]] = []
        with stream(endpoint, f"?after={snapshot['cursor']}", headers) as second:
            assert json.loads(second.recv(LIMIT))["kind"] == "snapshot"
            while sum(event["step"] == "ready" for event in seen) < 4:
                seen += json.loads(second.recv(LIMIT)).get("events", ())
        pages: list[dict[str, Any]] = []
        cursor, more = snapshot["cursor"], True
        while more and len(pages) < len(seen):
            page = asking.get("/api/events", params={"after": cursor, "limit": 7}).json()
            pages, cursor, more = pages + page["events"], page["cursor"], page["more"]
    cursors = [event["cursor"] for event in seen]
    assert cursors == [event["cursor"] for event in pages][: len(cursors)]
    assert len(set(cursors)) == len(cursors)


@pytest.mark.slow
def test_everything_that_the_description_names_answers(api: tuple[Shop, Endpoint]) -> None:
    """Each GET of /openapi.json, asked of the crew itself and not of a stand-in."""
    _, endpoint = api
    with client(endpoint) as asking:
        paths = asking.get("/openapi.json").json()["paths"]
        asked = [path for path, operations in paths.items() if "get" in operations]
        assert {"/api/status", "/api/why/{phase}", "/api/rollout/status", "/metrics"} <= set(asked)
        for path in asked:
            answer = asking.get(re.sub(r"\{name\}", "QA_READ", path).replace("{phase}", "qa"))
            assert answer.status_code == 200, (path, answer.text)
