import fastapi
import pytest

from mmllm.serve import problems
from mmllm.serve.api import document, errors, routes, schemas


@pytest.fixture(scope="module")
def described() -> dict:
    app = fastapi.FastAPI(title="mmllm", version="1")
    app.include_router(routes.router)
    return document.describe(app, errors.OpenAIErrorDocument)


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_every_reference_leads_to_a_schema(described: dict):
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references(described) <= known
    assert "$defs" not in str(described)


def test_a_task_takes_a_form_and_json(described: dict):
    content = described["paths"]["/v1/caption"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    assert content["application/json"]["schema"]["required"] == ["image"]
    assert content["application/json"]["schema"]["additionalProperties"] is False


def test_errors_are_problem_documents(described: dict):
    responses = described["paths"]["/v1/caption"]["post"]["responses"]
    for status in ("400", "401", "413", "415", "422", "429", "500", "503", "504"):
        assert set(responses[status]["content"]) == {"application/problem+json"}


def test_a_route_names_only_the_errors_of_its_codes():
    assert set(document.errors("entry-not-found")) - set(document.errors()) == {404}
    assert all(
        status in {k.status for k in problems.CATALOGUE.values()} for status in document.errors()
    )


def test_the_schema_of_problems_has_all_that_problems_tell():
    told = problems.document(
        problems.Problem("invalid-field", field="a", reason="b", retry_after_s=1.0), "en", "id", "/"
    )
    assert set(told) == set(schemas.ProblemDocument.model_fields)
    schemas.ProblemDocument.model_validate(told)


def test_operations_are_named_by_what_they_do(described: dict):
    assert described["paths"]["/v1/caption"]["post"]["summary"] == "Says what a picture shows"


def test_an_error_names_the_codes_that_it_may_have(described: dict):
    responses = described["paths"]["/v1/admin/reload"]["post"]["responses"]
    assert responses["409"]["description"] == "Conflict: reload-running, several-processes"


def test_what_an_operation_needs_beyond_its_name_is_told(described: dict):
    assert "SIGHUP" in described["paths"]["/v1/admin/reload"]["post"]["description"]
    assert "description" not in described["paths"]["/v1/caption"]["post"]
