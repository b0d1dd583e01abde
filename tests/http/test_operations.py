"""What operators and probes see of a replica whose stores come and go."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.errors import CargoFlowError
from app.core.settings import Settings
from app.features.operations.network import is_private
from app.main import create_app
from tests.engines import MongoEngine, RedisEngine
from tests.waiting import until


async def ready_becomes(client: httpx.AsyncClient, status: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            response = await client.get("/ready")
            document: dict[str, Any] = response.json()
            if document["status"] == status:
                return document | {"http": response.status_code}
            await asyncio.sleep(0.02)


async def test_with_both_stores_a_replica_is_ready(client: httpx.AsyncClient) -> None:
    response = await client.get("/ready")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    assert document["status"] == "pass"
    assert document["replica"] == "replica-test"
    for name in ("mongo", "redis"):
        check = document["checks"][name]
        assert check["status"] == "pass"
        assert check["age_ms"] >= 0
        assert check["latency_ms"] > 0


async def test_without_redis_it_warns_and_stays_ready(
    client: httpx.AsyncClient, redis_engine: RedisEngine
) -> None:
    redis_engine.kill()
    document = await ready_becomes(client, "warn")
    assert document["http"] == 200
    assert document["checks"]["redis"]["status"] == "fail"
    assert (await client.get("/health")).json()["status"] == "pass"
    response = await client.get("/cache-stats")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    redis_engine.start()
    await ready_becomes(client, "pass")


async def test_without_mongodb_it_is_not_ready_and_still_alive(
    client: httpx.AsyncClient, mongo_engine: MongoEngine
) -> None:
    mongo_engine.kill()
    document = await ready_becomes(client, "fail")
    assert document["http"] == 503
    assert document["code"] == "store_unavailable"
    assert (await client.get("/health")).status_code == 200
    mongo_engine.start()
    await ready_becomes(client, "pass")


async def test_a_frozen_store_delays_no_probe(client: httpx.AsyncClient, mongo_engine: MongoEngine) -> None:
    mongo_engine.freeze()
    document = await ready_becomes(client, "fail")
    assert document["checks"]["mongo"]["status"] == "fail"
    async with asyncio.timeout(10):  # a quarter of what these would take if each asked the store
        for _ in range(20):
            await client.get("/ready")
    mongo_engine.thaw()
    await ready_becomes(client, "pass")


async def test_draining_fails_readiness_before_anything_else(app: FastAPI, client: httpx.AsyncClient) -> None:
    app.state.draining.set()
    response = await client.get("/ready")
    assert response.status_code == 503
    assert response.json()["code"] == "draining"
    assert response.headers["retry-after"] == "1"
    assert (await client.get("/health")).status_code == 200


async def test_metrics_tell_how_many_connections_each_store_s_pool_has(client: httpx.AsyncClient) -> None:
    shown = (await client.get("/metrics")).text
    for store in ("MongoDB", "Redis"):
        sizes = {
            state: float(
                shown.split(f'cargoflow_store_pool{{state="{state}",store="{store}"}} ')[1].split()[0]
            )
            for state in ("in_use", "open", "max")
        }
        assert 0 <= sizes["in_use"] <= sizes["open"] <= sizes["max"]
        assert sizes["open"] > 0


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_may_use_head(path: str, client: httpx.AsyncClient) -> None:
    response = await client.head(path)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.content == b""


@pytest.mark.settings(limit_anonymous="1/minute")
async def test_operations_are_not_counted_by_any_limit(client: httpx.AsyncClient) -> None:
    for path in ("/health", "/ready", "/metrics", "/cache-stats", "/docs", "/openapi.json") * 3:
        response = await client.get(path)
        assert response.status_code == 200
        assert "ratelimit" not in response.headers


async def test_cache_stats_add_up_over_replicas(
    client: httpx.AsyncClient, app: FastAPI, settings: Settings
) -> None:
    assert (await client.get("/cache-stats")).json() == {
        "hits": 0,
        "reads": 0,
        "hit_ratio": None,
        "by_kind": {},
    }
    other = create_app(settings.model_copy(update={"replica_name": "replica-other"}))
    async with other.router.lifespan_context(other):
        await until(lambda: other.state.kit.redis.health.status == "pass")
        for kit in (app.state.kit, other.state.kit):
            kit.hot.count("session:a", "hit")
            kit.hot.count("session:b", "miss")
            kit.hot.count("login:c", "hit")
        async with asyncio.timeout(20):
            while (stats := (await client.get("/cache-stats")).json())["reads"] < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert stats["hits"] == 4
    assert stats["hit_ratio"] == round(4 / 6, 4)
    assert stats["by_kind"] == {"session": {"hit": 2, "miss": 2}, "login": {"hit": 2}}


async def test_metrics_tell_about_requests_stores_and_the_process(client: httpx.AsyncClient) -> None:
    await client.get("/health")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in (
        'cargoflow_http_requests_total{method="GET",status="2xx",template="/health"} ',
        "cargoflow_http_request_duration_seconds_bucket{",
        'cargoflow_breaker_open{store="Redis"} 0.0',
        'cargoflow_breaker_open{store="MongoDB"} 0.0',
        "cargoflow_uptime_seconds ",
        "cargoflow_process_resident_memory_bytes ",
    ):
        assert name in response.text


@pytest.mark.parametrize(
    "address", ["203.0.113.9", "2001:db8::1", "172.32.0.1", "100.64.0.1", "testclient", ""]
)
async def test_metrics_do_not_exist_for_public_addresses(address: str, app: FastAPI) -> None:
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://cargoflow.test") as stranger:
        response = await stranger.get("/metrics")
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"


@pytest.mark.parametrize("address", ["127.0.0.2", "10.9.8.7", "172.16.0.1", "192.168.1.1", "::1", "fd12::1"])
def test_private_addresses_are_private(address: str) -> None:
    assert is_private(address)


async def test_every_error_code_has_a_description(client: httpx.AsyncClient) -> None:
    def classes(root: type[CargoFlowError]) -> set[type[CargoFlowError]]:
        return {root}.union(*(classes(child) for child in root.__subclasses__()))

    codes = {error.code for error in classes(CargoFlowError)}
    assert len(codes) > 15
    for code in codes | {"bad_gateway", "gateway_timeout"}:
        response = await client.get(f"/problems/{code}")
        assert response.status_code == 200
        assert response.json()["code"] == code
        assert len(response.json()["description"]) > 10
    assert (await client.get("/problems/no-such-code")).status_code == 404


@pytest.mark.settings(docs_enabled=False)
async def test_docs_can_be_switched_off(client: httpx.AsyncClient) -> None:
    for path in ("/docs", "/openapi.json", "/docs/start.js"):
        assert (await client.get(path)).status_code == 404


async def test_docs_load_nothing_from_elsewhere_and_hold_no_inline_script(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "<script>" not in response.text
    assert "default-src 'self'" in response.headers["content-security-policy"]


async def test_swagger_ui_comes_from_this_process(client: httpx.AsyncClient) -> None:
    script = await client.get("/docs/swagger-ui-bundle.js")
    assert script.status_code == 200
    assert b"SwaggerUIBundle" in script.content
    assert (await client.get("/docs/swagger-ui.css")).headers["content-type"].startswith("text/css")
    assert "SwaggerUIBundle(" in (await client.get("/docs/start.js")).text
    for unknown in ("swagger-ui.css.map", "..%2fmain.py", "__init__.py"):
        assert (await client.get(f"/docs/{unknown}")).status_code == 404


async def test_openapi_may_be_cached_and_is_the_same_each_time(client: httpx.AsyncClient) -> None:
    first, second = await client.get("/openapi.json"), await client.get("/openapi.json")
    assert first.headers["cache-control"] == "public, max-age=300"
    assert first.content == second.content
