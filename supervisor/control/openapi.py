"""The OpenAPI 3.1 document of the control API, computed from the table of its endpoints and the shapes they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from . import shapes

if TYPE_CHECKING:
    from .app import Endpoint

REF = "#/components/schemas/{name}"
ANYBODY = (401, 403, 421)  # what the guard answers, whatever was asked


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document; the same endpoints give the same document."""
    types: dict[type[msgspec.Struct], None] = {shapes.ErrorOut: None}
    for point in endpoints:
        if not isinstance(point.answer, str):
            types[point.answer] = None
        if point.body is not None:
            types[point.body] = None
    _, schemas = msgspec.json.schema_components(list(types), ref_template=REF)
    paths: dict[str, Any] = {}
    for point in endpoints:
        paths.setdefault(point.path, {})[point.method.lower()] = _operation(point)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Phase Supervisor: control API of a running supervisor",
            "version": "1",
            "description": "On 127.0.0.1 only. Address and token are in a private file of the user's runtime folder.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(schemas),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(point: Endpoint) -> dict[str, Any]:
    answer: dict[str, Any] = (
        {point.answer: {"schema": {}}} if isinstance(point.answer, str) else _json(point.answer.__name__)
    )
    responses: dict[str, Any] = {"200": {"description": "What was asked for", "content": answer}}
    for status in sorted({*point.refusals, *ANYBODY, *((413,) if point.method == "POST" else ())}):
        shape = "ReplyOut" if status == 409 else "ErrorOut"
        responses[str(status)] = {"description": REFUSALS[status], "content": _json(shape)}
    operation: dict[str, Any] = {
        "summary": point.summary,
        "operationId": point.path.strip("/").replace("/", "_").replace("{", "").replace("}", "").replace(".", "_"),
        "responses": responses,
    }
    if point.parameters:
        operation["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.within,
                "required": parameter.within == "path",
                "description": parameter.text,
                "schema": parameter.schema,
            }
            for parameter in point.parameters
        ]
    if point.body is not None:
        needed = any(one.required for one in msgspec.structs.fields(point.body))
        operation["requestBody"] = {"required": needed, "content": _json(point.body.__name__)}
    return operation


def _json(shape: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF.format(name=shape)}}}


REFUSALS = {
    401: "The token is missing or wrong",
    403: "A page elsewhere asked",
    404: "There is no such phase or document",
    409: "The command was understood, and refused, or done only as far as its text says",
    410: "Nothing can be continued from this cursor",
    413: "The body is too large",
    421: "The Host is not ours",
    422: "The request is not what is needed",
}
