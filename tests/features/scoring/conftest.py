"""Scores are tried on the same people and applications as documents are."""

from tests.features.scans.conftest import api, app_kit, documents, me, underwriter

__all__ = ["api", "app_kit", "documents", "me", "underwriter"]
