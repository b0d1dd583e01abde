"""What the tests of auth say over and over."""

from typing import Any

import httpx

PASSWORD = "correct horse battery"
EMAIL = "ada@example.com"


async def register(api: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD) -> dict[str, Any]:
    answer = await api.post(
        "/auth/register",
        json={"email": email, "password": password, "name": "Ada", "company": "Nordwind Logistics"},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def log_in(
    api: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD, **headers: str
) -> httpx.Response:
    return await api.post("/auth/login", json={"email": email, "password": password}, headers=headers)


async def refresh(api: httpx.AsyncClient, token: str) -> httpx.Response:
    return await api.post("/auth/refresh", json={"refresh_token": token})


async def me(api: httpx.AsyncClient, access_token: str) -> httpx.Response:
    return await api.get("/auth/me", headers=bearer(access_token))


def bearer(access_token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access_token}"}
