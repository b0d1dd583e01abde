"""What /openapi.json promises is what the application does, for whatever a generator comes up with.

Schemathesis makes requests of every operation out of its own description, good ones and bad ones, always the
same ones (derandomised). Each answer must be no server error, have a status and a content type that are
documented, and a body of the documented shape.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.core.settings import Settings
from app.main import create_app
from tests.cluster.counts import full, show
from tests.engines import Replica

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = hypothesis.settings(
    max_examples=full(200, 15),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
ENDS_THE_CREDENTIAL = {
    "POST /api/v1/auth/logout",
    "POST /api/v1/auth/logout-all",
}
"""Any request to these succeeds and logs the fuzzer out, so they are asked without a token."""


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


DESCRIPTION = create_app(Settings(app_env="development")).openapi()
"""The application's description of itself, known before anything runs, so that every operation is a test."""
operations = schemathesis.openapi.from_dict(DESCRIPTION)


def test_the_running_replica_describes_itself_as_the_tests_below_believe(target: Replica) -> None:
    assert requests.get(f"{target.url}/openapi.json", timeout=30).json() == DESCRIPTION


def is_problem_if_refused(ctx: Any, response: Any, case: Any) -> None:
    """Every refusal is a problem, whatever the operation documents."""
    del ctx, case
    if response.status_code >= 400:
        kind = response.headers["content-type"][0].split(";")[0]
        assert kind == "application/problem+json", f"{response.status_code} as {kind}"


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Counter[tuple[str, int]]]:
    """How often each operation gave an admin each status; a fuzzer that never gets in proves little. Ids that
    exist can't be guessed, so operations on one don't count.
    """
    seen: Counter[tuple[str, int]] = Counter()
    yield seen
    by_operation: dict[str, dict[int, int]] = {}
    for (operation, status), count in sorted(seen.items()):
        by_operation.setdefault(operation, {})[status] = count
    show("\n".join(f"{operation}: {statuses}" for operation, statuses in by_operation.items()))
    reachable = {
        operation: min(statuses) for operation, statuses in by_operation.items() if "{" not in operation
    }
    inside = [operation for operation, status in reachable.items() if status < 300]
    assert len(inside) > len(reachable) / 2, "most operations were never reached with good input"


@operations.parametrize()
@EXAMPLES
def test_an_admin_gets_what_is_documented(
    case: Any,
    target: Replica,
    http: requests.Session,
    admin_token: str,
    outcomes: Counter[tuple[str, int]],
) -> None:
    known = case.operation.label not in ENDS_THE_CREDENTIAL
    response = case.call_and_validate(
        base_url=target.url,
        session=http,
        headers={"Authorization": f"Bearer {admin_token}"} if known else {},
        checks=[*CHECKS, is_problem_if_refused],
    )
    if case.method == case.operation.method.upper():
        outcomes[case.operation.label, response.status_code] += 1


@operations.parametrize()
@EXAMPLES
def test_a_stranger_gets_what_is_documented(case: Any, target: Replica, http: requests.Session) -> None:
    case.call_and_validate(base_url=target.url, session=http, checks=[*CHECKS, is_problem_if_refused])
