"""The OpenAPI document, composed from the mounted routes and msgspec's JSON Schemas.

Source: OpenAPI Specification 3.1.0; its schemas are JSON Schema 2020-12, which msgspec writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route

from fairway import __version__
from fairway.api.operation import Operation
from fairway.api.problem import Problem

_REF = "#/components/schemas/{name}"
_COMMON_ERRORS = (400, 401, 403, 500)


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of those `routes` whose handlers carry an `Operation`."""
    described = [(route, told) for route in routes if isinstance(route, Route) and (told := _operation(route))]
    types: list[Any] = [Problem]
    for _, told in described:
        types += [
            kind for kind in (told.body, told.response, *(query.type for query in told.query)) if kind is not None
        ]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = {_key(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route, told in described:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(path, {})[method.lower()] = _describe(route, path, told, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fairway",
            "version": __version__,
            "description": "Apps, jobs, events, logs and health of one Fairway.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> Operation | None:
    told = getattr(route.endpoint, "operation", None)
    return told if isinstance(told, Operation) else None


def _key(kind: Any) -> str:
    return repr(kind)


def _describe(route: Route, path: str, told: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{told.tag}.{route.endpoint.__name__}",
        "summary": told.summary,
        "tags": [told.tag],
        "responses": _responses(told, by_type),
    }
    if route.endpoint.__doc__:
        described["description"] = " ".join(route.endpoint.__doc__.split())
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    parameters += [
        {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "description": query.about,
            "schema": by_type[_key(query.type)],
        }
        for query in told.query
    ]
    if parameters:
        described["parameters"] = parameters
    if told.body is not None:
        described["requestBody"] = {
            "required": told.body_required,
            "content": {"application/json": {"schema": by_type[_key(told.body)]}},
        }
    if told.public:
        described["security"] = []
    return described


def _responses(told: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success"}
    if told.media_type == "text/event-stream":
        success["content"] = {told.media_type: {"schema": _event(told, by_type)}}
    elif told.media_type != "application/json":
        success["content"] = {told.media_type: {"schema": {"type": "string"}}}
    elif told.response is not None:
        success["content"] = {"application/json": {"schema": by_type[_key(told.response)]}}
    responses: dict[str, Any] = {str(told.status): success}
    problem = {"application/problem+json": {"schema": by_type[_key(Problem)]}}
    statuses = {*_COMMON_ERRORS, *told.errors}
    if told.body is not None:
        statuses |= {413, 415, 422}
    for status in sorted(statuses):
        responses[str(status)] = {"description": "Problem", "content": problem}
    return responses


def _event(told: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    """Describe one server-sent event; its data is JSON in a string."""
    data: dict[str, Any] = {"type": "string", "contentMediaType": "application/json"}
    if told.response is not None:
        data["contentSchema"] = by_type[_key(told.response)]
    text = {"type": "string"}
    return {"type": "object", "properties": {"data": data, "event": text, "id": text}, "required": ["data"]}
