"""The program that reads one document, `python -m app.features.scans.reader TYPE PARENT_PID < document`.

A process of its own, since what it is given comes from anybody and is taken apart by libraries written in C:
it has no secret in its environment and none of the service's connections, and the kernel bounds its memory,
its time on the processor and its files, so that the worst that a document can do is to end its own reading.
It dies with its parent. `reading` starts it and judges how it ended.

It prints one JSON object: `{"pages": […], "fields": […], "cut": …}` (`to_wire`), `cut` when there was more
text than CHARACTERS_MAX, or `{"error": code}` (`verdicts`). Libraries are imported after the limits are set.
Nothing else imports this module: no replica needs what it needs (decision 0017).
"""

import ctypes
import io
import json
import math
import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from app.features.scans.fields import find_fields
from app.features.scans.limits import (
    BYTES_MAX,
    CHARACTERS_MAX,
    CPU_MAX_S,
    MEMORY_MAX_BYTES,
    PAGES_MAX,
    PIXELS_MAX,
)
from app.features.scans.pages import Page, Row, Word, rows_of, slope_of

_FILES_MAX: Final = 64
_NICENESS: Final = 5
_LONGEST_SIDE: Final = 3600
"""Pixels. A4 at 300 dpi has 3508; more makes letters larger and the engine slower, not better."""
_ENLARGED_BELOW: Final = 900
"""Pixels on the longest side: letters of such a page are too small for the engine."""
_PAGE_PIXELS: Final = 8_000_000
_DPI: Final = 200
_POINTS_PER_INCH: Final = 72
_LETTERS_OF_A_TEXT_PAGE: Final = 20
"""A page with fewer in its text layer is looked at: a scan may carry a stamp or a page number as text."""
_LANGUAGES: Final = "eng+deu"
_DOUBTFUL: Final = 60
"""Mean confidence, of 100, below which a page may lie on its side or its head."""
_PR_SET_PDEATHSIG: Final = 1
_PDF_ERRORS: Final = {0: "no_pages", 4: "encrypted"}
"""By PDFium's code (FPDF_GetLastError): it fails to open a PDF without pages, and knows of no error then."""


class CannotReadError(Exception):
    """The document can't be read; the code says why."""


def main(media_type: str, parent_pid: int) -> None:
    """Read the document on standard input and print what it says, or why not."""
    _tie_to(parent_pid)
    _set_limits()
    document = sys.stdin.buffer.read(BYTES_MAX + 1)
    try:
        answer = _read(document, media_type)
    except CannotReadError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "too_complex"}
    except ImportError as error:
        answer = {"error": "engine_missing", "reason": str(error)}
    json.dump(answer, sys.stdout)


def _read(document: bytes, media_type: str) -> dict[str, Any]:
    if media_type == "application/pdf":
        found = _pdf_pages(document)
    else:
        found = iter([_picture_page(document, media_type)])
    pages, cut = _as_many_as_fit(found)
    return {
        "pages": [page.to_wire() for page in pages],
        "fields": [field.to_wire() for field in find_fields(pages)],
        "cut": cut,
    }


def _as_many_as_fit(found: Iterator[Page]) -> tuple[list[Page], bool]:
    """Return pages up to CHARACTERS_MAX, and whether there was more."""
    pages: list[Page] = []
    room = CHARACTERS_MAX
    for page in found:
        rows: list[Row] = []
        for row in page.rows:
            room -= len(row.text)
            if room < 0:
                return [*pages, Page(page.number, page.source, tuple(rows))], True
            rows.append(row)
        pages.append(page)
    return pages, False


# -- PDF: what it says of itself, and a look at the pages that say nothing --------------------------------


def _pdf_pages(document: bytes) -> Iterator[Page]:
    import pypdfium2  # noqa: PLC0415  # after the limits

    try:
        pdf = pypdfium2.PdfDocument(document)
        count = len(pdf)
    except pypdfium2.PdfiumError as error:
        raise CannotReadError(_PDF_ERRORS.get(error.err_code, "damaged")) from None
    if count > PAGES_MAX:
        raise CannotReadError("too_many_pages")
    engine: _Engine | None = None
    for index in range(count):
        try:
            page = pdf[index]
            text = page.get_textpage().get_text_bounded()
            if sum(letter.isalnum() for letter in text) >= _LETTERS_OF_A_TEXT_PAGE:
                yield Page(index + 1, "text", tuple(Row(line, 1.0) for line in _lines(text)))
                continue
            picture = page.render(scale=_scale(*page.get_size()), grayscale=True).to_pil()
        except pypdfium2.PdfiumError:
            raise CannotReadError("damaged") from None
        engine = engine or _Engine()
        yield Page(index + 1, "ocr", engine.rows(picture))


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        printable = "".join(letter if letter.isprintable() else " " for letter in line).strip()
        if printable:
            yield printable


def _scale(width: float, height: float) -> float:
    """Return by how much to enlarge a page of that size, in points: _DPI, or what its pixels allow."""
    if not (width > 0 and height > 0):
        raise CannotReadError("damaged")
    longest = _LONGEST_SIDE / max(width, height)
    return min(_DPI / _POINTS_PER_INCH, longest, math.sqrt(_PAGE_PIXELS / (width * height)))


# -- pictures ---------------------------------------------------------------------------------------------


def _picture_page(document: bytes, media_type: str) -> Page:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  # after the limits

    Image.MAX_IMAGE_PIXELS = PIXELS_MAX
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        with Image.open(
            io.BytesIO(document), formats=["PNG" if media_type == "image/png" else "JPEG"]
        ) as picture:
            grey = _grey(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise CannotReadError("too_many_pixels") from None
    except MemoryError:
        raise
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ):  # what Pillow's decoders raise
        raise CannotReadError("damaged") from None
    return Page(1, "ocr", _Engine().rows(grey))


def _grey(picture: Any) -> Any:
    """Decode a picture, upright, in shades of grey, no larger than is of use."""
    from PIL import Image, ImageOps  # noqa: PLC0415  # after the limits

    picture.draft("L", (_LONGEST_SIDE, _LONGEST_SIDE))  # a JPEG is decoded smaller than it is
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "P":
        picture = picture.convert("RGBA")
    elif picture.mode == "1":
        picture = picture.convert("L")
    elif picture.mode.startswith("I"):
        picture = picture.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))  # before anything makes a copy
    if "A" in picture.getbands():
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture.convert("RGBA"))
        picture = white
    return picture.convert("L")


# -- the engine -------------------------------------------------------------------------------------------


class _Engine:
    """Tesseract, once a document."""

    def __init__(self) -> None:
        from tesserocr import PSM, RIL, PyTessBaseAPI, iterate_level  # noqa: PLC0415  # after the limits

        data = Path(sys.prefix) / "share" / "tessdata"
        if not all((data / f"{name}.traineddata").exists() for name in (*_LANGUAGES.split("+"), "osd")):
            raise ImportError(f"there are no language data in {data}")
        self._api = PyTessBaseAPI(path=str(data), lang=_LANGUAGES, psm=PSM.AUTO)
        self._turns = PyTessBaseAPI(path=str(data), lang="osd", psm=PSM.OSD_ONLY)
        for api in (self._api, self._turns):
            api.SetVariable("debug_file", "/dev/null")
        self._iterate, self._word, self._line = iterate_level, RIL.WORD, RIL.TEXTLINE

    def rows(self, picture: Any) -> tuple[Row, ...]:
        """Read a picture in shades of grey; one that lies on its side or its head is turned."""
        sized = _sized(picture)
        rows, sure = self._recognised(sized)
        if sure < _DOUBTFUL:
            turn = self._turn(sized)
            if turn:
                turned, better = self._recognised(sized.rotate(turn, expand=True, fillcolor=255))
                return turned if better > sure else rows
        return rows

    def _recognised(self, picture: Any) -> tuple[tuple[Row, ...], float]:
        self._api.SetImage(picture)
        if not self._api.Recognize():
            raise CannotReadError("too_complex")
        found = self._api.GetIterator()
        if found is None or found.Empty(self._word):
            return (), _DOUBTFUL  # a blank page is one however it is turned
        words, baselines = [], []
        for place in self._iterate(found, self._word):
            text, box = place.GetUTF8Text(self._word), place.BoundingBox(self._word)
            if text and text.strip() and box:
                words.append(Word(text.strip(), place.Confidence(self._word) / 100, *box))
            if place.IsAtBeginningOf(self._line):
                baseline = place.Baseline(self._line)
                if baseline:
                    baselines.append(baseline)
        self._api.Clear()
        sure = sum(word.confidence for word in words) / len(words) * 100 if words else 0
        return rows_of(words, slope=slope_of(baselines)), sure

    def _turn(self, picture: Any) -> int:
        """Return by how many degrees, counter-clockwise, the picture should be turned."""
        self._turns.SetImage(picture)
        found = self._turns.DetectOrientationScript()
        self._turns.Clear()
        return 0 if found is None else int(found["orient_deg"])


def _sized(picture: Any) -> Any:
    from PIL import Image  # noqa: PLC0415  # after the limits

    if max(picture.size) >= _ENLARGED_BELOW:
        return picture
    return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC)


# -- the process ------------------------------------------------------------------------------------------


def _tie_to(parent_pid: int) -> None:
    """Die with the parent, however it goes. Elsewhere than on Linux the limits alone end an orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before the setting was made
            sys.exit(1)
        # Should the machine run out of memory all the same, this is what the kernel ends, not the worker.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _set_limits() -> None:
    bounds = {
        resource.RLIMIT_CPU: CPU_MAX_S,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _FILES_MAX,
    }
    if sys.platform == "linux":  # elsewhere it can't be lowered, or means nothing
        bounds[resource.RLIMIT_AS] = MEMORY_MAX_BYTES
    for which, most in bounds.items():
        soft, hard = resource.getrlimit(which)
        resource.setrlimit(which, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
    os.nice(_NICENESS)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
