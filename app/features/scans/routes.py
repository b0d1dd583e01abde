"""`/applications/{id}/documents`: seen by whoever sees the application."""

from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response

from app.features.scans import service
from app.features.scans.documents import shown, shown_with_text
from app.features.scans.limits import BYTES_MAX
from app.features.scans.media import ENDINGS
from app.features.scans.schemas import UPLOAD, Received, ScanOut, ScanTextOut
from app.http.admission import Caller, Kit
from app.http.downloads import Download
from app.http.idempotency import UnreadCall, unread_caller
from app.http.responses import JsonResponse, encode
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.http.uploads import AROUND_MAX_BYTES, FileUpload
from app.state.keyed import Answer
from app.state.kit import StateKit
from app.state.mongo import Document

router = ApiRouter(prefix="/applications/{application_id}/documents", tags=["Documents"])

UploadCall = Annotated[UnreadCall, Depends(unread_caller())]

_CONTENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ENDINGS},
        "description": "The file as it was handed in.",
    }
}


@router.post(
    "",
    status_code=202,
    response_model=Received,
    openapi_extra=UPLOAD,
    max_body_size=BYTES_MAX + AROUND_MAX_BYTES,
    summary="Hand in a document",
)
async def upload_document(request: Request, application_id: str, kit: Kit, call: UploadCall) -> Response:
    """Hand in a document, to be read by machine and compared with the application.

    The field `file`: a PDF, a PNG or a JPEG by its content, `415` otherwise; 10 MB, `413` beyond. The same
    file again is the same document, with or without an Idempotency-Key. `422 document_limit` beyond 20.
    """
    upload = FileUpload(request, field="file", bytes_max=BYTES_MAX)
    async with service.arrived(kit, call.principal, application_id, upload) as came:
        return await call.read(came.content).once(
            partial(service.keep, kit, call.principal, came), answer_of=partial(_received, kit)
        )


@router.get("", response_model=Page[ScanOut], summary="List an application's documents")
async def list_documents(application_id: str, kit: Kit, caller: Caller) -> Response:
    """List what was handed in, in the order it came: fields with confidence, and what contradicts the
    application. There are few: the list is one page.
    """
    found = await service.documents(kit, caller, application_id)
    return JsonResponse({"items": [shown(document) for document in found], "next_cursor": None})


@router.get("/{document_id}", response_model=ScanTextOut, summary="Read a document")
async def read_document(application_id: str, document_id: str, kit: Kit, caller: Caller) -> Response:
    """Show a document with its text."""
    return JsonResponse(shown_with_text(await service.document(kit, caller, application_id, document_id)))


@router.get(
    "/{document_id}/content", response_class=Response, responses=_CONTENT, summary="Download a document"
)
async def download_document(application_id: str, document_id: str, kit: Kit, caller: Caller) -> Response:
    """Send the file as it was handed in, as an attachment."""
    file, pieces = await service.content(kit, caller, application_id, document_id)
    name = f"{document_id}.{ENDINGS[file.media_type]}"
    return Download(pieces, media_type=file.media_type, length=file.length, name=name)


def _received(kit: StateKit, document: Document) -> Answer:
    body = encode({"document_id": document["_id"], "job_id": document["job_id"]})
    location = f"{kit.settings.base_path}/applications/{document['application_id']}/documents"
    return Answer(202, body, {"Location": f"{location}/{document['_id']}"})
