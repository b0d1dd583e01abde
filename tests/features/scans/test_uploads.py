"""Handing documents in: what is taken, what is not, and that one file is one document."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest

from app.features.scans import service
from app.features.scans.limits import BYTES_MAX, DOCUMENTS_MAX
from app.state.kit import StateKit
from tests.features.scans import samples
from tests.features.scans.conftest import APPLICATION
from tests.features.scans.uploads import hand_in, stored
from tests.state.people import Person, log_in, new_account, new_person


async def test_a_document_is_taken_in_listed_and_given_back(
    api: httpx.AsyncClient, documents: str, me: Person
) -> None:
    content = samples.scanned()
    taken = await hand_in(api, documents, content, name="../../in/voice\u202e .png")
    assert taken.status_code == 202, taken.text
    assert taken.json().keys() == {"document_id", "job_id"}
    assert taken.headers["location"] == f"/api/v1{documents}/{taken.json()['document_id']}"
    (listed,) = (await api.get(documents)).json()["items"]
    assert listed == {
        "id": taken.json()["document_id"],
        "application_id": documents.split("/")[2],
        "name": "voice .png",
        "media_type": "image/png",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "state": "queued",
        "pages": 0,
        "job_id": taken.json()["job_id"],
        "user_id": me.account.id,
        "fields": [],
        "confirmed": [],
        "mismatches": [],
        "error": None,
        "created_at": listed["created_at"],
        "read_at": None,
    }
    one = await api.get(f"{documents}/{listed['id']}")
    assert one.json() == {**listed, "text": "", "text_cut": False}
    job = await api.get(f"/jobs/{listed['job_id']}")
    assert (job.json()["type"], job.json()["state"]) == ("scans.read", "pending")
    back = await api.get(f"{documents}/{listed['id']}/content")
    assert back.content == content
    assert back.headers["content-type"] == "image/png"
    assert back.headers["content-disposition"] == f'attachment; filename="{listed["id"]}.png"'
    assert back.headers["x-content-type-options"] == "nosniff"
    assert back.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "validation_failed"),
        (b"%PDF", 415, "unsupported_media_type"),
        (b"<html>a disguise</html>", 415, "unsupported_media_type"),
        (b"GIF89a" + bytes(100), 415, "unsupported_media_type"),
        (b"%PDF-" + bytes(BYTES_MAX - 4), 413, "payload_too_large"),
        (b"%PDF-" + bytes(BYTES_MAX * 2), 413, "payload_too_large"),
    ],
)
async def test_what_is_no_document_is_refused_and_nothing_is_kept(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str, *, content: bytes, status: int, code: str
) -> None:
    refused = await hand_in(api, documents, content, name="invoice.pdf")
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert await stored(app_kit) == (0, 0, 0)


async def test_ten_megabytes_are_taken_and_type_goes_by_content(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str
) -> None:
    content = b"%PDF-" + bytes(BYTES_MAX - 5)
    taken = await hand_in(api, documents, content, name="picture.png")
    assert taken.status_code == 202
    (listed,) = (await api.get(documents)).json()["items"]
    assert (listed["media_type"], listed["bytes"]) == ("application/pdf", BYTES_MAX)
    assert (await api.get(f"{documents}/{listed['id']}/content")).content == content


FORM = "multipart/form-data; boundary=b"
PART = '--b\r\nContent-Disposition: form-data; name="{}"; filename="a"\r\n\r\n{}\r\n'


@pytest.mark.parametrize(
    ("body", "kind", "status", "field"),
    [
        ("--b--\r\n", FORM, 422, "file"),
        (PART.format("other", "%PDF-1.7 x") + "--b--\r\n", FORM, 422, "other"),
        (PART.format("file", "%PDF-1.7 x") + PART.format("more", "x") + "--b--\r\n", FORM, 422, "more"),
        (PART.format("file", "%PDF-1.7 x") * 2 + "--b--\r\n", FORM, 422, "file"),
        (PART.replace('; filename="a"', "").format("file", "%PDF-1.7 x") + "--b--\r\n", FORM, 422, "file"),
        (PART.format("file", "%PDF-1.7 x"), FORM, 400, None),
        ("garbage", FORM, 400, None),
        ("", FORM, 400, None),
        ("--b--\r\n", "multipart/form-data", 415, None),
        ("--b--\r\n", "multipart/form-data; boundary=" + "b" * 300, 400, None),
        ('{"file": "x"}', "application/json", 415, None),
    ],
)
async def test_a_body_that_is_no_form_with_one_file_is_refused(
    api: httpx.AsyncClient,
    app_kit: StateKit,
    documents: str,
    *,
    body: str,
    kind: str,
    status: int,
    field: str | None,
) -> None:
    refused = await api.post(documents, content=body.encode(), headers={"Content-Type": kind})
    assert refused.status_code == status, refused.text
    if field is not None:
        assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert await stored(app_kit) == (0, 0, 0)


async def test_the_same_file_is_the_same_document_of_that_application_alone(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str
) -> None:
    first = await hand_in(api, documents)
    again = await hand_in(api, documents, name="another name.pdf")
    assert (again.status_code, again.json()) == (202, first.json())
    assert await stored(app_kit) == (1, 1, 1)
    other = (await api.post("/applications", json=APPLICATION)).json()["id"]
    elsewhere = await hand_in(api, f"/applications/{other}/documents")
    assert elsewhere.json()["document_id"] != first.json()["document_id"]
    assert await stored(app_kit) == (2, 2, 2)


async def test_a_key_says_what_a_file_says_anyway_and_is_no_good_for_another(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str
) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await hand_in(api, documents, headers=key)
    again = await hand_in(api, documents, headers=key)
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = await hand_in(api, documents, samples.born_digital(samples.STATEMENT), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await stored(app_kit) == (1, 1, 1)


async def test_of_many_at_once_each_file_is_one_document_and_no_application_has_too_many(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str
) -> None:
    files = [samples.pdf([f"% {number}"]) for number in range(DOCUMENTS_MAX + 2)]
    first = await asyncio.gather(*(hand_in(api, documents, file) for file in files[:10] for _ in range(2)))
    assert {answer.status_code for answer in first} == {202}
    assert len({answer.json()["document_id"] for answer in first}) == 10
    rest = await asyncio.gather(*(hand_in(api, documents, file) for file in files[10:]))
    refused = [answer for answer in rest if answer.status_code != 202]
    assert [answer.json()["code"] for answer in refused] == ["document_limit"] * 2
    assert (await hand_in(api, documents, files[0])).json() == first[0].json()
    assert await stored(app_kit) == (DOCUMENTS_MAX, DOCUMENTS_MAX, DOCUMENTS_MAX)
    listed = (await api.get(documents)).json()["items"]
    assert len(listed) == DOCUMENTS_MAX


async def test_who_does_not_see_the_application_finds_nothing(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str, me: Person, underwriter: Person
) -> None:
    made = (await hand_in(api, documents)).json()["document_id"]
    tenant_id = me.account.tenant_id
    colleague = await log_in(app_kit, await new_account(app_kit, role="shipper", tenant_id=tenant_id))
    dispatcher = await log_in(app_kit, await new_account(app_kit, role="dispatcher", tenant_id=tenant_id))
    stranger = await new_person(app_kit, role="admin")
    nowhere = "/applications/app_4TFxkQm7JYpZr2sVnW8aBc/documents"
    for path in ("", f"/{made}", f"/{made}/content"):
        assert (await api.get(documents + path, headers=underwriter.headers)).status_code == 200
        nothing = {**(await api.get(nowhere + path)).json(), "request_id": ""}
        assert nothing["code"] == "not_found"
        for person in (colleague, dispatcher, stranger):
            answer = await api.get(documents + path, headers=person.headers)
            assert {**answer.json(), "request_id": ""} == nothing
    for person in (colleague, dispatcher, stranger):
        answer = await hand_in(api, documents, samples.pdf([""]), headers=person.headers)
        assert answer.status_code == 404
    assert await stored(app_kit) == (1, 1, 1)
    other = (await api.post("/applications", json=APPLICATION)).json()["id"]
    assert (await api.get(f"/applications/{other}/documents/{made}")).status_code == 404
    by_underwriter = await hand_in(api, documents, samples.pdf(["%"]), headers=underwriter.headers)
    assert by_underwriter.status_code == 202


async def test_a_file_that_takes_too_long_to_arrive_is_not_waited_for(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(beginning: str) -> AsyncIterator[bytes]:
        yield PART.format("file", beginning).encode()[:-2]
        await asyncio.Event().wait()

    monkeypatch.setattr(service, "ARRIVES_WITHIN_S", 0.2)
    for beginning in ("%P", "%PDF-1.7 and so on"):
        late = await api.post(documents, content=slowly(beginning), headers={"Content-Type": FORM})
        assert (late.status_code, late.json()["code"]) == (408, "request_timeout")
    assert await stored(app_kit) == (0, 0, 0)
