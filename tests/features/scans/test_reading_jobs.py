"""Documents are read by the worker: fields found, contradictions flagged, hopeless files answered clearly."""

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.features.credit.service import SCORE
from app.features.scans import jobs, reading
from app.features.scans.reading import EngineMissingError, ReadingInterruptedError, UnreadableError
from app.state.job_documents import Job
from app.state.kit import StateKit
from tests.features.scans import samples
from tests.features.scans.conftest import APPLICATION
from tests.features.scans.uploads import hand_in
from tests.state.people import Person
from tests.state.working import until_over, working


async def read(
    api: httpx.AsyncClient, kit: StateKit, me: Person, path: str, content: bytes
) -> tuple[dict[str, Any], Job]:
    """Hand a document in, let a worker read it, and return it with its job."""
    made = (await hand_in(api, path, content)).json()
    async with working(kit, *jobs.handlers(kit)):
        job = await until_over(kit, made["job_id"], me.account.tenant_id, timeout_s=120)
    shown: dict[str, Any] = (await api.get(f"{path}/{made['document_id']}")).json()
    return shown, job


def values(document: dict[str, Any], name: str, basis: str | None = None) -> list[Any]:
    return [
        field["value"] for field in document["fields"] if field["name"] == name and field["basis"] == basis
    ]


@pytest.mark.parametrize(
    "content",
    [samples.photographed(), samples.born_digital(), samples.scanned_pdf()],
    ids=["jpg", "pdf", "scan"],
)
async def test_the_fields_of_an_invoice_are_found_photographed_born_digital_and_scanned(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, documents: str, content: bytes
) -> None:
    document, job = await read(api, app_kit, me, documents, content)
    assert (document["state"], document["pages"], document["error"]) == ("read", 1, None)
    assert values(document, "company", "issuer") == [samples.COMPANY]
    assert values(document, "registration_number") == [samples.REGISTRATION_NUMBER]
    total = {"amount_minor": samples.INVOICE_TOTAL_MINOR, "currency": "EUR"}
    assert values(document, "revenue", "invoice_total") == [total]
    assert values(document, "date", "invoice_date") == ["2026-03-14"]
    assert values(document, "date", "due_date") == ["2026-04-13"]
    assert min(field["confidence"] for field in document["fields"] if field["basis"] == "invoice_total") > 0.8
    assert (document["confirmed"], document["mismatches"]) == (["company_name", "registration_number"], [])
    assert "Total amount due" in document["text"]
    assert job.result == {
        "document_id": document["id"],
        "state": "read",
        "fields": len(document["fields"]),
        "mismatches": 0,
        "error": None,
    }
    scoring = app_kit.mongo.collection("jobs").find({"type": SCORE}).sort("created_at", 1)
    payloads = [row["payload"] async for row in scoring]
    assert payloads == [{"application_id": document["application_id"]}] * 2, "one at the start, one now"


async def test_what_contradicts_the_applicant_is_flagged_with_both_values(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    stated = {
        "company_name": "Südwind Spedition GmbH",
        "registration_number": "HRB 654321",
        "annual_revenue": {"amount_minor": 900_000_000, "currency": "EUR"},
    }
    made = (await api.post("/applications", json={**APPLICATION, **stated})).json()
    path = f"/applications/{made['id']}/documents"
    document, _ = await read(api, app_kit, me, path, samples.photographed(samples.STATEMENT))
    found = {
        "company_name": samples.COMPANY,
        "registration_number": samples.REGISTRATION_NUMBER,
        "annual_revenue": {"amount_minor": samples.ANNUAL_REVENUE_MINOR, "currency": "EUR"},
    }
    assert {row["field"]: (row["stated"], row["found"]) for row in document["mismatches"]} == {
        name: (stated[name], found[name]) for name in stated
    }
    after = (await api.get(f"/applications/{made['id']}")).json()
    assert after == made, "a document decides nothing"


HOPELESS = {
    "encrypted": samples.encrypted_pdf(),
    "no_pages": samples.pdf_without_pages(),
    "too_many_pages": samples.pdf([""] * 1000),
    "too_many_pixels": samples.png_bomb(),
    "damaged": samples.scanned()[:9000],
}


async def test_a_hopeless_file_is_failed_with_a_code_and_a_sentence_and_its_job_is_done(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, documents: str
) -> None:
    made = {code: (await hand_in(api, documents, content)).json() for code, content in HOPELESS.items()}
    async with working(app_kit, *jobs.handlers(app_kit)):
        for each in made.values():
            job = await until_over(app_kit, each["job_id"], me.account.tenant_id, timeout_s=60)
            assert (job.state, job.attempts) == ("completed", 0)
    for code, each in made.items():
        document = (await api.get(f"{documents}/{each['document_id']}")).json()
        assert (document["state"], document["error"]["code"]) == ("failed", code)
        assert document["error"]["detail"].endswith(".")
        assert (document["fields"], document["text"]) == ([], "")
    scored = await app_kit.mongo.collection("jobs").count_documents({"type": SCORE})
    assert scored == 1, "what could not be read changes no score"


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineMissingError(), "engine_missing"), (ReadingInterruptedError("killed"), "interrupted")],
)
async def test_a_failure_of_the_service_goes_to_the_dead_letter_and_can_be_mended(
    api: httpx.AsyncClient,
    app_kit: StateKit,
    me: Person,
    documents: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    error: Exception,
    code: str,
) -> None:
    async def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "read", fail)
        patched.setattr(jobs, "_INTERRUPTIONS_MAX", 1)
        document, job = await read(api, app_kit, me, documents, samples.born_digital())
    assert (document["state"], document["error"]["code"]) == ("failed", code)
    assert (job.state, len(job.errors)) == ("dead", 1)
    if code == "engine_missing":
        assert "./cargoflow bootstrap --ocr" in document["error"]["detail"]
        assert "./cargoflow bootstrap --ocr" in job.errors[0].message
    await app_kit.job_desk.retry(tenant_id=me.account.tenant_id, job_id=job.id)
    async with working(app_kit, *jobs.handlers(app_kit)):
        assert (await until_over(app_kit, job.id, me.account.tenant_id)).state == "completed"
    mended = (await api.get(f"{documents}/{document['id']}")).json()
    assert (mended["state"], mended["error"]) == ("read", None)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("image/png", samples.transparent),
        ("image/jpeg", samples.sideways),
        ("image/jpeg", samples.upside_down),
    ],
)
async def test_a_page_is_read_whichever_way_it_was_handed_in(kind: str, make: Callable[[], bytes]) -> None:
    async def picture() -> AsyncIterator[bytes]:
        yield make()

    found = await reading.read(kind, picture())
    assert {field.value for field in found.fields if field.name == "registration_number"} == {
        samples.REGISTRATION_NUMBER
    }
    assert len(found.pages[0].rows) == sum(bool(left) for left, _ in samples.INVOICE)


async def test_the_reader_ends_with_its_limits_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"%PDF-"
        await asyncio.Event().wait()

    monkeypatch.setattr(reading, "WALL_MAX_S", 0.5)
    with pytest.raises(ReadingInterruptedError, match=r"longer than 0\.5 s"):
        await reading.read("application/pdf", endless())


def large() -> bytes:
    """A picture that takes a hundred megabytes once it is decoded."""
    return samples.encoded(Image.new("RGBA", (5000, 5000)), "PNG", compress_level=1)


def laborious() -> bytes:
    """A picture of nothing but noise, in which an engine sees letters everywhere."""
    return samples.encoded(Image.effect_noise((3000, 3000), 20), "JPEG", quality=15)


@pytest.mark.parametrize(
    ("limit", "most", "kind", "content"),
    [
        (resource.RLIMIT_AS, 200 * 1024 * 1024, "image/png", large),
        (resource.RLIMIT_CPU, 1, "image/jpeg", laborious),
    ],
    ids=["memory", "time"],
)
async def test_a_document_that_takes_too_much_ends_its_reader_and_is_too_complex(
    monkeypatch: pytest.MonkeyPatch, *, limit: int, most: int, kind: str, content: Callable[[], bytes]
) -> None:
    """Bounds that are lower than the reader's own are inherited here."""
    document, spawn = content(), asyncio.create_subprocess_exec
    lower = f"resource.setrlimit({limit}, ({most}, {most * 9}))"

    async def hungry() -> AsyncIterator[bytes]:
        yield document

    async def spawn_with_less(*command: str, **options: Any) -> Any:
        # exec makes no new process: the reader's parent stays who it is
        script = f"import os, resource, sys; {lower}; os.execv(sys.argv[1], sys.argv[1:])"
        return await spawn(sys.executable, "-c", script, *command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn_with_less)
    with pytest.raises(UnreadableError, match="more memory or time") as refused:
        await reading.read(kind, hungry())
    assert refused.value.code == "too_complex"


def test_what_was_killed_from_outside_is_tried_again_and_what_broke_down_is_not() -> None:
    with pytest.raises(ReadingInterruptedError, match="SIGKILL"):
        reading._judged(-signal.SIGKILL, b"", b"")
    with pytest.raises(ReadingInterruptedError, match="ended with 1: no such thing"):
        reading._judged(1, b"", b"no such thing")
    with pytest.raises(UnreadableError) as broke:
        reading._judged(-signal.SIGSEGV, b"", b"")
    assert broke.value.code == "damaged"


async def test_a_reader_without_its_packages_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tesserocr.py").write_text("raise ImportError('no tesserocr here')")

    async def photo() -> AsyncIterator[bytes]:
        yield samples.scanned()

    monkeypatch.setattr(reading, "_ROOT", f"{tmp_path}:{reading._ROOT}")
    with pytest.raises(EngineMissingError, match="bootstrap --ocr"):
        await reading.read("image/png", photo())
