"""The control API from the other side: how the command line asks a running supervisor, with the standard library only.

No proxy of the environment is ever asked on the way, and the token goes to the address of the private file only.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from supervisor.exits import WORDS, Exit, UserError
from supervisor.workspace import Workspace, holder, none_runs

from .endpoint import HOST, Endpoint, endpoint_file, load, require_known

ANSWER_WITHIN = 60.0  # seconds; a restart waits for a worker to end its work


class NoneRunningError(UserError):
    """The command needs a running supervisor."""

    exit = Exit.NONE_RUNNING


class ApiError(UserError):
    """The supervisor refused; its words, and the exit code that the same mistake has without a supervisor."""

    def __init__(self, status: int, text: str, code: object = None) -> None:
        super().__init__(text, exit_code=next((exit_ for exit_, word in WORDS.items() if word == code), None))
        self.status = status


class UnreachableError(UserError):
    """A supervisor runs, but does not answer."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer's status and its JSON."""

    status: int
    said: Any


class Client:
    """Asks one running supervisor; each question is a connection of its own."""

    def __init__(self, endpoint: Endpoint, *, within: float = ANSWER_WITHIN) -> None:
        self.endpoint = endpoint
        self._within = within

    def get(self, path: str, **query: str | int | None) -> Any:
        """The JSON at that path; `ApiError` with the supervisor's words otherwise."""
        words = {name: value for name, value in query.items() if value is not None}
        return self._checked(self._ask("GET", path + (f"?{urlencode(words)}" if words else "")))

    def command(self, name: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a command: the reply (`ok`, `text`, `data`); `ApiError` where it was refused."""
        return self._checked(self._ask("POST", f"/api/commands/{quote(name)}", body or {}))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The same for what is no command."""
        return self._checked(self._ask("POST", path, body))

    def _checked(self, answer: Answered) -> Any:
        if answer.status == 200:
            return answer.said
        said = answer.said if isinstance(answer.said, dict) else {}
        error = said.get("error")
        text = error.get("text") if isinstance(error, dict) else said.get("text")
        data = said.get("data")
        code = data.get("code") if isinstance(data, dict) else None
        raise ApiError(answer.status, str(text or f"the supervisor answered with status {answer.status}"), code)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answered:
        connection = http.client.HTTPConnection(HOST, self.endpoint.port, timeout=self._within)
        headers = {"Authorization": f"Bearer {self.endpoint.token}", "Accept": "application/json"}
        sent = None
        if body is not None:
            sent = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            return Answered(response.status, json.loads(response.read() or b"null"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnreachableError(
                f"the supervisor (process {self.endpoint.pid}) runs but does not answer on {self.endpoint.url}: "
                f"{error}. If that lasts, end it: kill {self.endpoint.pid}"
            ) from error
        finally:
            connection.close()


def find_running(workspace: Workspace, *, folder: Path | None = None) -> Client | None:
    """A client for the workspace's supervisor; None if none runs, or it has not opened its API (yet)."""
    pid = holder(workspace)
    if pid is None:
        return None
    endpoint = load(endpoint_file(workspace, folder))
    if endpoint is None or endpoint.pid != pid:  # an earlier one's
        return None
    require_known(endpoint)
    return Client(endpoint)


def require_running(workspace: Workspace, *, folder: Path | None = None) -> Client:
    """The same; raises `NoneRunningError`, or `UnreachableError` for a supervisor without its API."""
    client = find_running(workspace, folder=folder)
    if client is not None:
        return client
    pid = holder(workspace)
    if pid is None:
        raise NoneRunningError(none_runs(workspace.root))
    raise UnreachableError(
        f"the supervisor of {workspace.root} (process {pid}) has not opened its control API; try again in a moment. "
        f"If that lasts, its log says why, and interrupting it ends it: kill {pid}"
    )
