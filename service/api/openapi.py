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

from service.api.schemas import (
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
    Problem,
    LineError,
)


def takes(model: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    """``openapi_extra`` for a route whose body is `model`, and whose errors are problems."""
    problem = {
        "application/problem+json": {"schema": {"$ref": _COMPONENTS.format(model="Problem")}}
    }
    return {
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": {"$ref": _COMPONENTS.format(model=model.__name__)}}},
        },
        "responses": {"default": {"description": "A problem document", "content": problem}},
    }


def install_openapi(app: FastAPI) -> None:
    """Adds the request schemas to the document that FastAPI generates."""

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
            made.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document
