"""The rules of documents: what may be handed in, by whom, and how it gets to where it is read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.core.errors import UnsupportedMediaTypeError
from app.features.credit.store import ApplicationStore, scope_of
from app.features.scans.errors import SlowUploadError
from app.features.scans.media import HEAD_BYTES, media_type_of
from app.features.scans.store import ScanStore
from app.http.uploads import FileUpload
from app.state.files import ArrivingFile, StoredFile
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal

ARRIVES_WITHIN_S: Final = 60.0
"""Nginx collects an upload before it sends it on, so this is for who comes by another way."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that is here, and gone again unless it is kept."""

    file: ArrivingFile
    name: str
    application_id: str

    @property
    def content(self) -> str:
        """What was handed in, as far as it matters to who asks whether it is the same."""
        return self.file.sha256


@asynccontextmanager
async def arrived(
    kit: StateKit, caller: Principal, application_id: str, upload: FileUpload
) -> AsyncIterator[Arrived]:
    """Take a file in, a piece at a time, for an application that the caller sees.

    Raises NotFoundError before anything is read, UnsupportedMediaTypeError before anything is stored,
    SlowUploadError, what `FileUpload` raises, what `Files.arriving` raises.
    """
    await ApplicationStore(kit).get(scope_of(caller), application_id)
    pieces = aiter(upload)
    async with _in_time():
        head = await _head(pieces)
    media_type = media_type_of(head)
    if media_type is None:
        raise UnsupportedMediaTypeError(
            "Hand in a PDF, a PNG or a JPEG. What a file is, its content says, not its name."
        )
    async with kit.files.arriving(tenant_id=caller.tenant_id, media_type=media_type) as file:
        async with _in_time():
            await file.write(head)
            async for piece in pieces:
                await file.write(piece)
            await file.finish()
        yield Arrived(file, upload.name, application_id)


async def keep(
    kit: StateKit, caller: Principal, came: Arrived, keyed: Keyed[Document] | None = None
) -> Document:
    """Make a document of a file that arrived, or return the one that its content is already.

    Raises as `ScanStore.add` does.
    """
    return await ScanStore(kit).add(caller, came.application_id, came.file, came.name, keyed)


async def documents(kit: StateKit, caller: Principal, application_id: str) -> list[Document]:
    """Return the documents of an application, in the order they came. Raises NotFoundError."""
    await ApplicationStore(kit).get(scope_of(caller), application_id)
    return await ScanStore(kit).of_application(caller.tenant_id, application_id)


async def document(kit: StateKit, caller: Principal, application_id: str, document_id: str) -> Document:
    """Return a document. Raises NotFoundError."""
    await ApplicationStore(kit).get(scope_of(caller), application_id)
    return await ScanStore(kit).get(caller.tenant_id, application_id, document_id)


async def content(
    kit: StateKit, caller: Principal, application_id: str, document_id: str
) -> tuple[StoredFile, AsyncIterator[bytes]]:
    """Return a document's file and its bytes. Raises NotFoundError."""
    found = await document(kit, caller, application_id, document_id)
    file = await kit.files.get(caller.tenant_id, found["file_id"])
    return file, kit.files.read(file)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            yield
    except TimeoutError:
        raise SlowUploadError from None


async def _head(pieces: AsyncIterator[bytes]) -> bytes:
    """Return the first bytes, enough to tell what the file is."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= HEAD_BYTES:
            break
    return head
