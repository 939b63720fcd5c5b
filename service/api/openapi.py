"""The OpenAPI document for bodies that the routes read themselves.

Routes parse their bodies with pydantic's own JSON parser (strict, one pass, no
intermediate objects), so FastAPI has to be told what they take.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.errors import STATUSES
from service.api.schemas import (
    JobRequest,
    LineError,
    Problem,
    RankRequest,
    RubricRequest,
    ScoreRequest,
    VerifyRequest,
)

_COMPONENTS = "#/components/schemas/{model}"
_DOCUMENTED: tuple[type[BaseModel], ...] = (
    ScoreRequest,
    RubricRequest,
    VerifyRequest,
    RankRequest,
    JobRequest,
    Problem,
    LineError,
)


def takes(
    model: type[BaseModel],
    media_type: str = "application/json",
    others: dict[str, type[BaseModel]] | None = None,
) -> dict[str, Any]:
    """``openapi_extra`` for a route whose body is `model`.

    Args:
        model: of the body, or of each of its lines.
        media_type: of the body.
        others: what a body of another media type is.
    """
    bodies = {media_type: model} | (others or {})
    content = {kind: _schema(body.__name__) for kind, body in bodies.items()}
    return {"requestBody": {"required": True, "content": content}}


def _schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": _COMPONENTS.format(model=name)}}


_PROBLEM = {
    "description": "A problem document",
    "content": {"application/problem+json": _schema("Problem")},
}


def install_openapi(app: FastAPI) -> None:
    """Adds requests, and errors as they really look, to the document that FastAPI generates."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            _, schemas = models_json_schema(
                [(model, "validation") for model in _DOCUMENTED], ref_template=_COMPONENTS
            )
            known = made.setdefault("components", {}).setdefault("schemas", {})
            known.update(schemas["$defs"])
            for name in ("HTTPValidationError", "ValidationError"):
                known.pop(name, None)
            for methods in made["paths"].values():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = _PROBLEM
            known["Problem"]["properties"]["code"]["enum"] = sorted(kind.code for kind in STATUSES)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document
