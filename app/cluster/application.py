"""The replicas and workers of the local cluster: how they are run, and what environment they get.

That environment is the launcher's own, so whatever a person sets before `./cargoflow up` reaches them; on top
come the stores, the process's name and address, and defaults a laptop wants.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from app.cluster.child import Child, Program
from app.cluster.layout import REPOSITORY, Layout
from app.cluster.ports import LOOPBACK
from app.cluster.probes import http_ready

PROXY_SOURCE = "127.0.0.2" if sys.platform == "linux" else LOOPBACK
"""Where Nginx speaks to replicas from.

A second loopback address (Linux has all of 127/8) tells it from anybody else on this machine, so that only
its X-Forwarded-For is believed.
"""

_WORKER_SETTLED_S = 3.0


@dataclass(frozen=True)
class Stores:
    """Where the stores are, whoever runs them."""

    mongo_uri: str
    redis_url: str


def environment(
    given: Mapping[str, str], *, stores: Stores, jwt_secret: str, edge_port: int
) -> dict[str, str]:
    """Return what replicas and workers have in common.

    `given` wins, but for the stores, and TRUSTED_PROXIES, which is added to.
    """
    defaults = {
        "APP_ENV": "development",
        "JWT_SECRET": jwt_secret,
        "EDGE_LIMITS": "off",
        "PUBLIC_URL": f"http://localhost:{edge_port}",
        # a thread for each connection of the pool: Motor's default of five a core queues calls while
        # connections idle
        "MOTOR_MAX_WORKERS": given.get("DB_POOL_MAX") or "50",
        "PYTHONUNBUFFERED": "1",
    }
    proxies = [
        network for network in (given.get("TRUSTED_PROXIES", ""), f"{PROXY_SOURCE}/32") if network.strip()
    ]
    return {
        **defaults,
        **{name: value for name, value in given.items() if value or name not in defaults},
        "TRUSTED_PROXIES": ",".join(proxies),
        "MONGODB_URI": stores.mongo_uri,
        "REDIS_URL": stores.redis_url,
    }


def replica_program(layout: Layout, common: Mapping[str, str], name: str, port: int) -> Program:
    """Return one replica, listening on loopback. It serves when its own `/ready` is green."""

    async def ready(_: Child) -> bool:
        return await http_ready(port)

    return Program(
        argv=(sys.executable, "-m", "app.main"),
        cwd=REPOSITORY,
        env={**common, "REPLICA_NAME": name, "HOST": LOOPBACK, "PORT": str(port)},
        log=layout.log(name),
        ready=ready,
        address=f"{LOOPBACK}:{port}",
    )


def worker_program(layout: Layout, common: Mapping[str, str], name: str) -> Program:
    """Return one worker.

    It listens nowhere, so it counts as running once it logs (JSON lines), or has lived for 3 s in silence.
    """

    async def ready(child: Child) -> bool:
        return child.age_s > _WORKER_SETTLED_S or any(line.startswith("{") for line in child.last_words())

    return Program(
        argv=(sys.executable, "-m", "app.worker"),
        cwd=REPOSITORY,
        env={**common, "WORKER_NAME": name, "REPLICA_NAME": name},
        log=layout.log(name),
        ready=ready,
    )
