"""migrate, seed, and the live part of status: work on the stores of the running cluster, or on those that the
environment names.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from rich.markup import escape

from app.cli.options import DataOption
from app.cli.terminal import CommandFailedError, console
from app.cluster import client
from app.cluster.control import NobodyThereError
from app.cluster.layout import Layout
from app.core.errors import StoreUnavailableError
from app.core.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from app.features.admin.vitals import Vitals

T = TypeVar("T")
Action: TypeAlias = Callable[[Settings], Awaitable[T]]


def migrate(*, data: DataOption = None) -> None:
    """Bring indexes and the versions of stored documents up to date.

    Safe while the cluster serves, and safe to repeat or to interrupt. Works on the running cluster's stores;
    where none runs, on those that MONGODB_URI and REDIS_URL name.

    Example: ./cargoflow migrate
    """
    from app.features.admin.migrate import migrate as action  # noqa: PLC0415  # heavy

    _on_the_stores(Layout.at(data), action)


def seed(*, data: DataOption = None) -> None:
    """Make a demo company with users of every role, bookings, loads and applications; print the logins.

    Repeating it adds nothing. Works on the running cluster's stores; where none runs, on those that
    MONGODB_URI and REDIS_URL name.

    Example: ./cargoflow seed
    """
    from app.features.admin.seed import seed as action  # noqa: PLC0415  # heavy

    _on_the_stores(Layout.at(data), action)


def vitals_of(layout: Layout) -> "Vitals":
    """Return what the stores of the running cluster know of it. Raises CommandFailedError."""
    from app.features.admin.vitals import vitals as action  # noqa: PLC0415  # heavy

    return _asked(layout, action)


def _on_the_stores(layout: Layout, action: Action[str]) -> None:
    console().print(escape(_asked(layout, action)))


def _asked(layout: Layout, action: Action[T]) -> T:
    os.environ.update(asyncio.run(_environment(layout)))
    try:
        return asyncio.run(_done(action))
    except SettingsError as error:
        raise CommandFailedError(str(error)) from None
    except StoreUnavailableError as error:
        raise CommandFailedError(
            f"{error.store} does not answer; is it the one that MONGODB_URI or REDIS_URL name?"
        ) from None


async def _done(action: Action[T]) -> T:
    return await action(load_settings())


async def _environment(layout: Layout) -> dict[str, str]:
    """Return the stores' variables as the cluster's replicas have them; none if the caller sets them."""
    try:
        stores = (await client.command(layout, "status", lambda _: None))["stores"]
    except NobodyThereError:
        if os.environ.get("MONGODB_URI") and os.environ.get("REDIS_URL"):
            return {}
        raise CommandFailedError(
            "nothing runs here; start it with './cargoflow up', or set MONGODB_URI and REDIS_URL"
        ) from None
    secret = {} if os.environ.get("JWT_SECRET") else {"JWT_SECRET": layout.secret("jwt")}
    return {"MONGODB_URI": stores["mongo"]["uri"], "REDIS_URL": stores["redis"]["url"], **secret}
