"""What a scenario is: one file in `bench/scenarios` that defines SCENARIO.

It says what wrk sends (Lua), what that needs in the stores beforehand, and its floor: the least that a
request of this kind could do on the same drivers.
"""

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase

from app.state.kit import StateKit
from app.state.session_documents import Owner


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who is logged in."""

    owner: Owner
    token: str


@dataclass(frozen=True, slots=True)
class World:
    """What a scenario may use to get ready: the stores of the cluster, its address through Nginx, users, and
    how often wrk is going to run it, counting its floor and warming up.
    """

    kit: StateKit
    url: str
    users: Sequence[User]
    runs: int


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk is given: a row a user or document, whose fields hold no tab; and an answer to expect."""

    rows: Sequence[Sequence[str]]
    answer: bytes


@dataclass(frozen=True, slots=True)
class FloorStores:
    """What a floor may call: both stores through the plain drivers. `answer` is what it will send.

    `rows` is a collection of the scenario's own: what the floor of another one left behind, documents that
    were changed thousands of times, does not weigh on it.
    """

    mongo: AsyncIOMotorDatabase[dict[str, Any]]
    rows: AsyncIOMotorCollection[dict[str, Any]]
    redis: redis.asyncio.Redis
    answer: bytes


FloorCall = Callable[[], Awaitable[object]]
"""The store calls of one request."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of request under load.

    `lua` runs inside wrk after `wrk.lua`, which tells what it may define. `floor` is called once in each
    floor process and returns what that does on every request. `bar`: how many times its floor's CPU a request
    may cost; None where no bar is set.
    """

    name: str
    does: str
    floor_does: str
    bar: float | None
    lua: str
    prepare: Callable[[World], Awaitable[Load]]
    floor: Callable[[FloorStores], Awaitable[FloorCall]]


def scenario_names() -> list[str]:
    """Return the names of all scenarios: those of their files."""
    return [
        module.name for module in pkgutil.iter_modules(importlib.import_module("bench.scenarios").__path__)
    ]


def load_scenario(name: str) -> Scenario:
    """Return the scenario of that name."""
    scenario: Scenario = importlib.import_module(f"bench.scenarios.{name}").SCENARIO
    return scenario
