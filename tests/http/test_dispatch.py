"""Finding the route, and what stands in for one."""

import httpx
import pytest

from tests.http.conftest import Seen


async def test_a_literal_segment_wins_over_a_parameter(sample: httpx.AsyncClient) -> None:
    assert (await sample.get("/api/v1/samples/conditional")).json() == {"versions": None}
    assert (await sample.get("/api/v1/samples/conditionals")).json() == {"id": "conditionals"}


async def test_a_parameter_takes_what_the_literal_has_no_method_for(
    sample: httpx.AsyncClient, seen: Seen
) -> None:
    assert (await sample.delete("/api/v1/samples/conditional")).status_code == 204
    assert seen.changes == ["conditional"]


async def test_several_parameters_reach_the_handler_by_name(sample: httpx.AsyncClient) -> None:
    assert (await sample.get("/api/v1/samples/a%20b/parts/ü")).json() == {"id": "a b", "part": "ü"}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/api/v1/samples/",
        "/api/v1/samples//parts/x",
        "/api/v1/samples/x/parts",
        "//",
        "/API/v1/samples",
    ],
)
async def test_an_unknown_path_is_the_same_404_as_anything_one_may_not_see(
    path: str, sample: httpx.AsyncClient
) -> None:
    response = await sample.get(path)
    assert response.status_code == 404
    problem = response.json()
    del problem["request_id"]
    assert problem == {
        "type": "/problems/not_found",
        "title": "Not found",
        "status": 404,
        "detail": "There is nothing here, or nothing you may see.",
        "code": "not_found",
    }


async def test_405_names_every_method_of_the_path(sample: httpx.AsyncClient) -> None:
    response = await sample.put("/api/v1/samples")
    assert response.status_code == 405
    assert response.json()["code"] == "method_not_allowed"
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_options_names_them_too(sample: httpx.AsyncClient) -> None:
    response = await sample.options("/api/v1/samples/x")
    assert response.status_code == 204
    assert response.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


async def test_head_is_get_without_the_body(sample: httpx.AsyncClient) -> None:
    response = await sample.head("/api/v1/samples")
    assert response.status_code == 200
    assert response.headers["content-length"] == str(len((await sample.get("/api/v1/samples")).content))
    assert response.content == b""


async def test_head_of_a_problem_has_no_body_either(sample: httpx.AsyncClient) -> None:
    response = await sample.head("/nowhere")
    assert response.status_code == 404
    assert response.content == b""


async def test_a_version_conflict_carries_the_current_version(sample: httpx.AsyncClient) -> None:
    response = await sample.get("/api/v1/samples/conflict")
    assert response.status_code == 409
    assert response.json()["current_version"] == 7
    assert response.headers["etag"] == '"7"'


async def test_text_that_can_not_be_encoded_does_not_break_the_problem(sample: httpx.AsyncClient) -> None:
    response = await sample.get("/api/v1/samples/unencodable")
    assert response.status_code == 403
    assert response.json()["detail"] == "half a pair: ?"
    assert response.json()["list"] == ["?"]


async def test_openapi_says_that_errors_are_problems_and_how_to_authenticate(
    sample: httpx.AsyncClient,
) -> None:
    document = (await sample.get("/openapi.json")).json()
    create = document["paths"]["/api/v1/samples"]["post"]
    assert create["responses"]["4XX"]["content"].keys() == {"application/problem+json"}
    assert "422" not in create["responses"]
    assert document["components"]["schemas"]["Problem"]["required"]
    assert document["components"]["securitySchemes"].keys() == {"bearer", "apiKey"}
    assert document["paths"]["/health"]["get"]["security"] == []
    assert document["servers"] == [{"url": "/"}]
