"""Scores are tried on the same people and applications as documents are."""

from tests.features.scans.conftest import documents

__all__ = ["documents"]
