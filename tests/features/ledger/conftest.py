"""People and their clients, as for applications."""

from tests.features.credit.conftest import admin, api, app_kit, me, underwriter

__all__ = ["admin", "api", "app_kit", "me", "underwriter"]
