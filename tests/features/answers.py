"""What a refusal says."""

import httpx


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def wrong_fields(answer: httpx.Response) -> set[str]:
    """Return the fields that a 422 names."""
    assert problem(answer) == (422, "validation_failed")
    return {row["field"] for row in answer.json()["errors"]}
