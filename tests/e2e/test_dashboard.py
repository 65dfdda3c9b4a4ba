"""The dashboard in a real browser, beside a real crew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from supervisor.control.client import Client
from supervisor.control.endpoint import Endpoint, door, endpoint_file, load
from supervisor.workspace import Workspace, runtime_folder
from tests.e2e.browser import CHROMIUM, Page, browser
from tests.e2e.conftest import Shop
from tests.e2e.test_control import phases, run, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script> **bold**"


@pytest.fixture
def page() -> Iterator[Page]:
    with browser() as made:
        yield made


@pytest.fixture
def running(shop: Shop) -> Iterator[Shop]:
    """A crew in the background which has nothing left to do."""
    assert run(shop, "start").returncode == 0
    until(lambda: all(phase["state"] == "ready" for phase in phases(shop).values()), "everybody idle")
    try:
        yield shop
    finally:
        run(shop, "stop")


def endpoint_of(shop: Shop) -> tuple[Path, Endpoint]:
    file = endpoint_file(Workspace(shop.root), runtime_folder(shop.environ))
    endpoint = load(file)
    assert endpoint is not None
    return file, endpoint


def test_a_person_sees_the_crew_and_speaks_to_it(running: Shop, page: Page) -> None:
    """Opened as `dashboard` does: live state, past and new events, a task given, a phase paused, documents, an end."""
    file, endpoint = endpoint_of(running)
    assert running.ask("dashboard")["url"] == endpoint.dashboard
    page.open(door(file, endpoint).as_uri())  # a private file leads there

    page.until("document.querySelectorAll('#phases tr').length === 4", "four phases")
    page.until("document.getElementById('connection').textContent === 'live'", "that it is live")
    page.until("document.querySelectorAll('#events li').length > 0", "what happened before")
    assert endpoint.token not in page.ask("location.href")

    page.ask("document.querySelector('#phases tr:nth-child(2) button:nth-of-type(2)').click()")
    page.until("document.querySelector('#phases tr:nth-child(2) .state').textContent === 'paused'", "Developer paused")
    assert phases(running)["developer"]["state"] == "paused"

    page.ask(
        f"document.querySelector('#task textarea').value = {json.dumps('Question: ' + HOSTILE)};"
        "document.querySelector('#task select').value = 'developer';"
        "document.querySelector('#task').requestSubmit()"
    )
    page.until("!document.querySelector('#task textarea').value", "what became of the task")
    until(
        lambda: [post for post in running.posts("Question") if post["text"].startswith("<img src=x")],
        "the task on record",
    )

    page.ask(
        "document.getElementById('document').value = 'DEVELOPER_READ'; document.getElementById('document').onchange()"
    )
    page.until("document.getElementById('text').textContent.includes('onerror')", "the document with the task in it")
    assert page.ask("document.querySelectorAll('#text *, img[src=x]').length") == 0
    assert page.ask("document.title") != "taken"

    page.ask("document.querySelector('#phases tr:nth-child(1) button').click()")
    page.until("document.querySelectorAll('#why li').length > 0", "the reasons")

    run(running, "stop")
    page.until("document.getElementById('connection').textContent.startsWith('no connection')", "that it has ended")
    assert not file.with_suffix(".html").exists()


def test_a_phase_that_was_given_up_is_started_again_from_the_inbox(shop: Shop, page: Page) -> None:
    """It waits there with its reason, in the API as well, and a button does what it wants; then nothing waits."""
    shop.write("supervisor.toml", "[restart]\nrestarts = 0\n")
    assert run(shop, "start").returncode == 0
    try:
        until(lambda: all(phase["state"] == "ready" for phase in phases(shop).values()), "everybody idle")
        file, endpoint = endpoint_of(shop)
        page.open(door(file, endpoint).as_uri())
        psutil.Process(phases(shop)["qa"]["pid"]).kill()
        page.until("document.querySelector('#inbox button')?.textContent === 'Restart'", "what waits")
        assert "QA is not started again" in page.ask("document.getElementById('inbox').textContent")
        items = Client(endpoint).get("/api/inbox")["items"]
        assert [(item["id"], item["what"]) for item in items] == [("qa", "given up")]
        page.ask("document.querySelector('#inbox button').click()")
        until(lambda: phases(shop)["qa"]["state"] == "ready", "QA's new worker")
        page.until("document.querySelectorAll('#inbox li').length === 0", "that nothing waits")
    finally:
        run(shop, "stop")


def test_without_the_token_the_page_is_empty(running: Shop, page: Page) -> None:
    """Its address alone shows the words of a page and nothing of the crew."""
    _, endpoint = endpoint_of(running)
    page.open(f"{endpoint.url}/")
    page.until("document.getElementById('connection')?.textContent.includes('token')", "that the token is missing")
    assert page.ask("document.getElementById('phases').children.length") == 0
    assert str(running.root) not in page.ask("document.documentElement.outerHTML")
