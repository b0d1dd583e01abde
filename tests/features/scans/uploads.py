"""Handing in, and what is stored after it."""

from typing import Any

import httpx

from app.state.files import CHUNKS, FILES
from app.state.kit import StateKit
from tests.features.scans import samples

PDF = samples.born_digital()


async def hand_in(
    api: httpx.AsyncClient, path: str, content: bytes = PDF, *, name: str = "invoice.pdf", **more: Any
) -> httpx.Response:
    return await api.post(path, files={"file": (name, content)}, **more)


async def stored(kit: StateKit) -> tuple[int, int, int]:
    """Return how many documents, files that are kept, and files' contents there are."""
    kept = {"metadata.expires_at": {"$exists": False}}
    return (
        await kit.mongo.collection("scans").count_documents({}),
        await kit.mongo.collection(FILES).count_documents(kept),
        len(await kit.mongo.collection(CHUNKS).distinct("files_id")),
    )
