"""Callers for tests that leave HTTP out."""

from app.state.kit import StateKit
from app.state.principals import Credential, Principal, Role


async def new_caller(kit: StateKit, *, role: Role = "shipper", user_id: str = "usr_a") -> Principal:
    """Somebody of a tenant of their own."""
    tenant = await kit.tenants.create(name="Nordwind")
    return Principal(
        tenant_id=tenant.id,
        user_id=user_id,
        email=f"{user_id}@example.com",
        name="Ada",
        role=role,
        tier="standard",
        credential=Credential("login", "lgn_a"),
    )
