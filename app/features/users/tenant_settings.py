"""The settings all users of a tenant share, out of the cache: whoever opens the web client asks for them.

A change is seen by the next read through any replica (`state.cache`); with MongoDB gone the settings stay
readable for as long as TENANT allows.
"""

from typing import Final

import orjson

from app.features.users.schemas import TenantOut
from app.state.cache import CacheRead
from app.state.cache_kinds import CacheKind, everything_of
from app.state.kit import StateKit
from app.state.tenants import Tenant, TenantChanges
from app.state.versions import VersionCheck

TENANT: Final = CacheKind("tenant", scope="tenant", key=("tenant_id",), ttl_s=60, stale_s=600)


async def read(kit: StateKit, tenant_id: str) -> tuple[CacheRead, int]:
    """Return the settings as JSON, and their version. Raises NotFoundError."""

    async def load() -> bytes:
        return encode(await kit.tenants.get(tenant_id))

    found = await kit.cache.read(TENANT.entry(tenant_id=tenant_id), load)
    version: int = orjson.loads(found.body)["version"]
    return found, version


async def change(
    kit: StateKit, tenant_id: str, changes: TenantChanges, *, check_version: VersionCheck
) -> Tenant:
    """Change the settings and return the tenant. Raises what `Tenants.change` raises.

    Everything cached of the tenant ends: prices, for one, are in its currency.
    """
    async with kit.cache.changing(everything_of(tenant_id=tenant_id)):
        return await kit.tenants.change(tenant_id, changes, check_version=check_version)


def encode(tenant: Tenant) -> bytes:
    """Return the tenant as it is answered."""
    shown = TenantOut(
        id=tenant.id,
        name=tenant.name,
        currency=tenant.currency,
        time_zone=tenant.time_zone,
        version=tenant.version,
        created_at=tenant.created_at,
        updated_at=tenant.updated_at,
    )
    return orjson.dumps(shown.model_dump(), option=orjson.OPT_UTC_Z)
