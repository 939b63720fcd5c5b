from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ValidationError

from service.api import schemas
from service.api.schemas import RubricRequest, ScoreRequest, VerifyRequest
from service.app import Engines, create_app
from service.engines.scripted import ScriptedEngine
from service.metrics import Metrics
from service.settings import Settings

ROUTES = {
    ("/score", "post"),
    ("/rubric", "post"),
    ("/score/batch", "post"),
    ("/verify", "post"),
    ("/jobs", "post"),
    ("/jobs/{job_id}", "get"),
    ("/jobs/{job_id}", "delete"),
    ("/jobs/{job_id}/results", "get"),
    ("/livez", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
}
ASKED: dict[str, Any] = {"question": "Which?", "responses": ["One.", "Two."]}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = create_app(
        Settings(engine="scripted"),
        engines=Engines(ScriptedEngine()),
        metrics=Metrics(CollectorRegistry()),
    )
    return app.openapi()


def references(part: Any) -> Iterator[str]:
    """Every ``$ref`` in a document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A component as a schema that stands on its own."""
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_every_route_is_documented(document: dict[str, Any]):
    found = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert found >= ROUTES


def test_every_route_says_what_it_is_for(document: dict[str, Any]):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path}"
            assert operation.get("tags"), f"{method} {path}"


def test_the_version_is_one_whose_schemas_are_json_schema(document: dict[str, Any]):
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"] == "Proxy-GRM"
    assert document["info"]["version"]


def test_every_reference_leads_somewhere(document: dict[str, Any]):
    known = document["components"]["schemas"]
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in known, reference


def test_every_schema_is_a_valid_json_schema(document: dict[str, Any]):
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema.get("type") or schema.get("enum"), name


def test_operation_ids_are_unique(document: dict[str, Any]):
    ids = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("path", "media_type", "schema"),
    [
        ("/score", "application/json", "ScoreRequest"),
        ("/rubric", "application/json", "RubricRequest"),
        ("/verify", "application/json", "VerifyRequest"),
        ("/score/batch", "application/x-ndjson", "ScoreRequest"),
    ],
)
def test_a_route_names_its_body_and_its_errors(
    path: str, media_type: str, schema: str, document: dict[str, Any]
):
    operation = document["paths"][path]["post"]
    assert operation["requestBody"]["required"] is True
    content = operation["requestBody"]["content"]
    assert content == {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    problem = operation["responses"]["default"]["content"]["application/problem+json"]
    assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_the_answers_are_documented(document: dict[str, Any]):
    answers = {"/score": "ScoreAnswer", "/rubric": "RubricAnswer", "/verify": "VerifyAnswer"}
    for path, schema in answers.items():
        answer = document["paths"][path]["post"]["responses"]["200"]
        reference = answer["content"]["application/json"]["schema"]["$ref"]
        assert reference == f"#/components/schemas/{schema}"


@pytest.mark.parametrize("model", [ScoreRequest, RubricRequest, VerifyRequest])
def test_a_request_schema_has_every_field_and_refuses_others(
    model: type[BaseModel], document: dict[str, Any]
):
    schema = document["components"]["schemas"][model.__name__]
    assert set(schema["properties"]) == set(model.model_fields)
    assert schema["additionalProperties"] is False
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    assert schema["required"] == required
    assert required[:2] == ["question", "responses"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"images": [{"data": "AAAA"}], "id": "mine", "run_id": "r", "timeout_s": 5},
        {"rubric": {"text": "1. Truth (100%)"}, "depth": "verdict", "order": "both"},
        {"rubric": {"id": "rub_" + "0" * 24}, "votes": 3, "temperature": 0.5, "seed": 7},
        {"evaluators": ["proxy"], "priority": "batch", "cache": "bypass"},
        {"rubric": None, "require_consistent": True},
    ],
)
def test_the_document_and_the_service_take_the_same_requests(
    changes: dict[str, Any], document: dict[str, Any]
):
    jsonschema.validate(ASKED | changes, schema_of(document, "ScoreRequest"))
    ScoreRequest.model_validate(ASKED | changes, strict=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"video": "x"},
        {"responses": ["One."]},
        {"responses": ["One.", "Two.", "Three."]},
        {"responses": ["One.", "  "]},
        {"depth": "deep"},
        {"votes": 17},
        {"timeout_s": 0},
        {"images": [{"url": 5}]},
        {"rubric": {"id": "rub_1"}},
        {"question": None},
    ],
)
def test_the_document_and_the_service_refuse_the_same_requests(
    changes: dict[str, Any], document: dict[str, Any]
):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(ASKED | changes, schema_of(document, "ScoreRequest"))
    with pytest.raises(ValidationError):
        ScoreRequest.model_validate(ASKED | changes, strict=False)


@pytest.mark.anyio
async def test_what_is_answered_fits_the_document(
    gateway, start_gateway, proxy_release: str, document: dict[str, Any]
):
    score = await gateway.score(order="both")
    jsonschema.validate(score.json(), schema_of(document, "ScoreAnswer"))
    rubric = await gateway.client.post("/rubric", json=ASKED)
    jsonschema.validate(rubric.json(), schema_of(document, "RubricAnswer"))
    paired = await start_gateway(release=proxy_release)
    verified = await paired.verify(label=1)
    jsonschema.validate(verified.json(), schema_of(document, "VerifyAnswer"))
    problem = await gateway.client.post("/score", json=ASKED | {"votes": 99})
    jsonschema.validate(problem.json(), schema_of(document, "Problem"))
    line = await gateway.client.post("/score/batch", content=b"no json")
    jsonschema.validate(line.json(), schema_of(document, "LineError"))


@pytest.mark.anyio
async def test_the_document_and_its_page_are_served(gateway, document: dict[str, Any]):
    assert (await gateway.client.get("/openapi.json")).json() == document
    page = await gateway.client.get("/docs")
    assert page.status_code == 200
    assert "swagger" in page.text.lower()


@pytest.mark.anyio
async def test_the_page_needs_nothing_from_elsewhere(gateway):
    page = (await gateway.client.get("/docs")).text
    named = re.findall(r"""(?:src|href)="([^"]+)\"""", page)
    assert len(named) == 3
    for part in named:
        found = await gateway.client.get(part)
        assert (found.status_code, len(found.content) > 1000) == (200, True), part
    missing = await gateway.client.get("/docs/files/../../app.py")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_every_field_of_a_request_that_is_not_plain_says_what_it_is():
    plain = {"question", "priority", "temperature", "seed", "cache", "text", "id"}
    for model in (ScoreRequest, RubricRequest, VerifyRequest, schemas.ImageIn):
        for name, field in model.model_fields.items():
            assert field.description or name in plain, f"{model.__name__}.{name}"


def test_a_job_is_lines_or_names_a_source(document: dict[str, Any]):
    content = document["paths"]["/jobs"]["post"]["requestBody"]["content"]
    assert {kind: body["schema"]["$ref"].rpartition("/")[2] for kind, body in content.items()} == {
        "application/x-ndjson": "ScoreRequest",
        "application/json": "JobRequest",
    }
