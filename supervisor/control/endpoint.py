"""Where the control API of a workspace listens, and the token that opens it: one private file per workspace.

It lies in the user's runtime folder, never in the tree that agents work in. Whether the process it names still runs
is told by the workspace's lock, not here.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from supervisor.workspace import NewerFormatError, Workspace, runtime_folder, write_text

FORMAT = 1
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One running API; `pid` is its supervisor's."""

    pid: int
    port: int
    token: str
    workspace: str
    format: int = FORMAT

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def dashboard(self) -> str:
        """The dashboard's address. The token stands behind the #, which a browser sends to nobody."""
        return f"{self.url}/#token={self.token}"


def new_token() -> str:
    """256 bits, in characters that may stand in a header and in a WebSocket's subprotocol."""
    return secrets.token_urlsafe(32)


def endpoint_file(workspace: Workspace, folder: Path | None = None) -> Path:
    """The file for that workspace; `folder` is the user's runtime folder unless given."""
    name = hashlib.sha256(str(workspace.root).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return (folder or runtime_folder()) / f"{name}.json"


def publish(path: Path, endpoint: Endpoint) -> None:
    """Put the file in place at one stroke, readable by its owner only (0600)."""
    write_text(path, json.dumps(asdict(endpoint)) + "\n")


def withdraw(path: Path, endpoint: Endpoint) -> None:
    """Remove the file, unless a later supervisor has put its own there."""
    if load(path) == endpoint:
        path.unlink(missing_ok=True)
        path.with_suffix(".html").unlink(missing_ok=True)


def door(path: Path, endpoint: Endpoint) -> Path:
    """A private page beside the endpoint file that leads a browser to the dashboard with the token.

    The browser is given its path, so that the token is in nobody's list of processes.
    """
    page = path.with_suffix(".html")
    write_text(page, f'<!doctype html><meta http-equiv="refresh" content="0; url={endpoint.dashboard}">\n')
    return page


def load(path: Path) -> Endpoint | None:
    """What was published, whatever its format; None if nothing readable was."""
    try:
        said = json.loads(path.read_bytes())
        found = Endpoint(
            pid=int(said["pid"]),
            port=int(said["port"]),
            token=str(said["token"]),
            workspace=str(said["workspace"]),
            format=int(said["format"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def require_known(endpoint: Endpoint) -> None:
    """Raise `NewerFormatError` for the API of a newer release."""
    if endpoint.format > FORMAT:
        raise NewerFormatError(
            f"the supervisor of {endpoint.workspace} (process {endpoint.pid}) is of a newer release (control API "
            f"format {endpoint.format}; this one knows {FORMAT}): use the `supervisor` command of that release"
        )
