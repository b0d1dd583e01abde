"""What is revoked through one replica is revoked on all of them with the acknowledgement."""

import asyncio

import pytest

from tests.cluster.counts import full
from tests.cluster.wire import Reply
from tests.cluster.world import API, PASSWORD, Person, World, employ, expect, login

ROUNDS = full(50, 5)


async def everywhere(world: World, method: str, path: str, token: str) -> list[Reply]:
    """Ask every replica and Nginx at the same time."""
    return await asyncio.gather(*(door.ask(method, path, token=token) for door in world.places))


async def statuses(world: World, token: str, path: str = f"{API}/auth/me") -> set[int]:
    return {reply.status for reply in await everywhere(world, "GET", path, token)}


async def change(world: World, admin: Person, person: Person, **fields: object) -> None:
    door = world.anywhere()
    expect(200, await door.ask("PATCH", f"{API}/users/{person.id}", token=admin.token, body=fields))


@pytest.mark.timeout(300)
async def test_a_logout_is_known_everywhere_at_once_and_ends_no_other_login(world: World) -> None:
    person = await world.person()
    for _ in range(ROUNDS):
        leaving = await login(world, person.email)
        assert await statuses(world, leaving.token) == {200}  # every replica has seen it alive
        expect(204, await world.anywhere().ask("POST", f"{API}/auth/logout", token=leaving.token))
        assert await statuses(world, leaving.token) == {401}
        refresh = {"refresh_token": leaving.refresh_token}
        expect(401, await world.anywhere().ask("POST", f"{API}/auth/refresh", body=refresh))
        assert await statuses(world, person.token) == {200}


@pytest.mark.timeout(300)
async def test_logging_out_everywhere_ends_every_login_everywhere_at_once(world: World) -> None:
    person = await world.person()
    for _ in range(ROUNDS):
        logins = [await login(world, person.email) for _ in range(3)]
        for one in logins:
            assert await statuses(world, one.token) == {200}
        door = world.anywhere()
        expect(204, await door.ask("POST", f"{API}/auth/logout-all", token=logins[0].token))
        for one in logins:
            assert await statuses(world, one.token) == {401}


@pytest.mark.timeout(300)
async def test_a_role_taken_away_is_gone_everywhere_at_once(world: World) -> None:
    owner = await world.person()
    person = await employ(world, owner, "admin")
    for _ in range(ROUNDS):
        assert await statuses(world, person.token, f"{API}/users") == {200}
        await change(world, owner, person, role="dispatcher")
        seen = await statuses(world, person.token, f"{API}/users")
        assert seen <= {401, 403}
        await change(world, owner, person, role="admin")
        person = await login(world, person.email)


@pytest.mark.timeout(300)
async def test_a_deactivated_user_is_out_everywhere_at_once_and_stays_out(world: World) -> None:
    owner = await world.person()
    for _ in range(ROUNDS):
        person = await employ(world, owner, "driver")
        assert await statuses(world, person.token) == {200}
        await change(world, owner, person, active=False)
        assert await statuses(world, person.token) == {401}
        body = {"email": person.email, "password": PASSWORD}
        expect(401, await world.anywhere().ask("POST", f"{API}/auth/login", body=body))
        refresh = {"refresh_token": person.refresh_token}
        expect(401, await world.anywhere().ask("POST", f"{API}/auth/refresh", body=refresh))
        await change(world, owner, person, active=True)
        assert await statuses(world, person.token) == {401}, "a login from before came back to life"


@pytest.mark.timeout(300)
async def test_a_deleted_api_key_opens_nothing_anywhere(world: World) -> None:
    person = await world.person()
    for _ in range(ROUNDS):
        body = {"name": "integration"}
        made = expect(201, await world.nginx.ask("POST", f"{API}/api-keys", token=person.token, body=body))
        headers = {"X-API-Key": made["key"]}
        for door in world.places:
            expect(200, await door.ask("GET", f"{API}/auth/me", headers=headers))
        path = f"{API}/api-keys/{made['id']}"
        expect(204, await world.anywhere().ask("DELETE", path, token=person.token))
        for door in world.places:
            expect(401, await door.ask("GET", f"{API}/auth/me", headers=headers))
