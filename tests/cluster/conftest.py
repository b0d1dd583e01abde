"""Running clusters for the acceptance tests: three replicas behind Nginx, started by `./cargoflow up`.

- `world`: the shared cluster, whose limits never bite, but for those of the tier `premium`. Every test finds
  it whole, whatever the one before did. It pays through `gateway`, which is there if a test asks for it.
- `strict`: a second one, where a user, and an address without a user, may ask `limits.LIMITED` times an hour.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.harness import Cluster, free_port
from tests.cluster.limits import GENEROUS, STRICT
from tests.cluster.world import World
from tests.gateway_server import GatewayServer, gateway_server


@pytest.fixture(scope="session")
def gateway_port() -> int:
    return free_port()


@pytest.fixture
async def gateway(gateway_port: int) -> AsyncIterator[GatewayServer]:
    """The payment gateway of the shared cluster, for the length of a test."""
    async with gateway_server(gateway_port) as server:
        yield server


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, gateway_port: int) -> Iterator[Cluster]:
    env = {**GENEROUS, "GATEWAY_URL": f"http://127.0.0.1:{gateway_port}"}
    with Cluster(tmp_path_factory.mktemp("shared") / "data", replicas=3, env=env) as cluster:
        yield cluster


@pytest.fixture(scope="session")
async def shared_world(shared_cluster: Cluster) -> AsyncIterator[World]:
    world = World(shared_cluster)
    yield world
    await world.close()


@pytest.fixture
async def world(shared_world: World) -> World:
    await shared_world.whole()
    return shared_world


@pytest.fixture(scope="module")
async def strict_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with Cluster(tmp_path_factory.mktemp("strict") / "data", replicas=3, env=STRICT) as cluster:
        world = World(cluster)
        yield world
        await world.close()


@pytest.fixture
async def strict(strict_world: World) -> World:
    await strict_world.whole()
    return strict_world
