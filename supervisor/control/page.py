"""The dashboard's three files, which hold nothing secret: who opens them without the token sees an empty page.

They may load nothing from elsewhere and may not be framed. All that the crew wrote is put into the page as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes() -> Sequence[Route]:
    """One for each file, read when it is asked for."""
    return [Route(path, partial(_answer, name, kind)) for path, (name, kind) in FILES.items()]


def _answer(name: str, kind: str, _request: Request) -> Response:
    body = files(__package__).joinpath("static", name).read_bytes()
    return Response(body, headers={"content-type": kind, "content-security-policy": _POLICY})
