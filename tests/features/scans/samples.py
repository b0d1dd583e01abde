"""Documents for tests, made here: what a scanner, a phone or a book-keeping program would hand in, and what
an attacker would.

Everything is drawn with the font that Pillow brings, from seeded noise: the same bytes on every machine.
"""

import io
import random
import struct
import zlib
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

COMPANY = "Nordwind Logistik GmbH"
REGISTRATION_NUMBER = "HRB 123456"
INVOICE_TOTAL_MINOR = 1_249_500
ANNUAL_REVENUE_MINOR = 481_230_000

INVOICE: tuple[tuple[str, str], ...] = (
    (COMPANY, ""),
    ("Am Sandtorkai 50", "20457 Hamburg"),
    ("Commercial register", REGISTRATION_NUMBER),
    ("", ""),
    ("INVOICE", "2026-0815"),
    ("Invoice date", "14.03.2026"),
    ("Due date", "13.04.2026"),
    ("", ""),
    ("Bill to", "Alster Maschinenbau AG"),
    ("", ""),
    ("Carriage Hamburg to Munich", "EUR 8,400.00"),
    ("Carriage Munich to Trieste", "EUR 2,100.00"),
    ("Net amount", "EUR 10,500.00"),
    ("VAT 19 %", "EUR 1,995.00"),
    ("Total amount due", "EUR 12,495.00"),
)
"""An invoice: what stands on the left of each line, and on the right."""

STATEMENT: tuple[tuple[str, str], ...] = (
    (COMPANY, ""),
    ("Annual accounts 2025", ""),
    ("Registration No.", REGISTRATION_NUMBER),
    ("Balance sheet date", "31 December 2025"),
    ("", ""),
    ("Annual revenue", "EUR 4,812,300.00"),
    ("Cost of sales", "EUR 3,905,100.00"),
    ("Profit before tax", "EUR 412,000.00"),
)
"""Annual accounts."""

Lines = Sequence[tuple[str, str]]
_A4_AT_150_DPI = (1240, 1754)


def drawn(lines: Lines = INVOICE, *, size: tuple[int, int] = _A4_AT_150_DPI) -> Image.Image:
    """Return a clean page."""
    page = Image.new("L", size, 255)
    pen = ImageDraw.Draw(page)
    width, height = size
    letter = round(height / 62)
    for number, (left, right) in enumerate(lines):
        font = ImageFont.load_default(letter * 1.6 if number == 0 else letter)
        top = height * 0.06 + number * letter * 2.1
        pen.text((width * 0.09, top), left, font=font, fill=20)
        pen.text((width * 0.60, top), right, font=font, fill=20)
    return page


def photographed(lines: Lines = INVOICE, *, seed: int = 7, tilt_degrees: float = 1.4) -> bytes:
    """Return a JPEG of a page on a desk: tilted, seen from a corner, unevenly lit, blurred, grainy."""
    page = drawn(lines)
    width, height = page.size
    desk = Image.new("L", (round(width * 1.12), round(height * 1.1)), 96)
    desk.paste(page.rotate(tilt_degrees, Image.Resampling.BICUBIC, fillcolor=96), (70, 80))
    wide, high = desk.size
    corners = (0, 0, -18, high + 10, wide + 24, high - 16, wide - 12, 22)
    seen = desk.transform(desk.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC, fillcolor=96)
    light = (
        Image.linear_gradient("L").resize(seen.size).rotate(180).point(lambda level: 150 + level * 105 // 255)
    )
    seen = ImageChops.multiply(seen, light).filter(ImageFilter.GaussianBlur(0.7))
    noise = random.Random(seed).randbytes(wide * high)  # noqa: S311  # grain, not a secret
    grain = Image.frombytes("L", seen.size, noise).point(lambda level: 118 + level * 20 // 255)
    photo = ImageChops.add(seen, grain, scale=1, offset=-128)
    return encoded(
        Image.merge("RGB", (photo, photo, photo.point(lambda level: level * 15 // 16))), "JPEG", quality=78
    )


def scanned(lines: Lines = INVOICE) -> bytes:
    """Return a PNG of a page as a flatbed scanner makes it."""
    return encoded(drawn(lines), "PNG")


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture as a file."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def transparent(lines: Lines = INVOICE) -> bytes:
    """Return a PNG of black letters on nothing."""
    page = drawn(lines)
    letters = Image.new("RGBA", page.size, (0, 0, 0, 0))
    letters.paste((0, 0, 0, 255), mask=page.point(lambda level: 255 - level))
    return encoded(letters, "PNG")


def sideways(lines: Lines = INVOICE) -> bytes:
    """Return a JPEG that lies on its side, and says so, as a phone's does."""
    orientation = Image.Exif()
    orientation[0x0112] = 6
    return encoded(drawn(lines).rotate(90, expand=True), "JPEG", exif=orientation)


def upside_down(lines: Lines = INVOICE) -> bytes:
    """Return a JPEG that stands on its head and doesn't know."""
    return encoded(drawn(lines).rotate(180), "JPEG")


def scanned_pdf(lines: Lines = INVOICE) -> bytes:
    """Return a PDF that holds nothing but a picture of the page."""
    return encoded(drawn(lines), "PDF", resolution=150.0)


def born_digital(lines: Lines = INVOICE, *, pages: int = 1) -> bytes:
    """Return a PDF with a text layer; all pages but the first one are empty."""
    text = ["BT /F1 11 Tf"]
    for number, (left, right) in enumerate(lines):
        for x, words in ((60, left), (340, right)):
            escaped = words.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            text.append(f"1 0 0 1 {x} {780 - 22 * number} Tm ({escaped}) Tj")
    text.append("ET")
    return pdf(["\n".join(text), *[""] * (pages - 1)])


def pdf(contents: Sequence[str], *, box: str = "0 0 595 842") -> bytes:
    """Return a PDF whose pages draw these content streams."""
    first = 4
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, content in enumerate(contents):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents {first + 2 * number + 1} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(_stream("", content.encode("latin-1")))
    return _assembled(objects)


def encrypted_pdf() -> bytes:
    """Return a PDF that nobody opens without its password."""
    lock = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'5a' * 32}> /U <{'a5' * 32}> >>"
    return _assembled(_blank_page(), trailer=f"{lock} /ID [<{'00' * 16}> <{'00' * 16}>]")


def pdf_without_pages() -> bytes:
    """Return a PDF that is well formed and empty."""
    return pdf([])


def pdf_with_a_picture_of(pixels: int) -> bytes:
    """Return a small PDF whose only page shows a picture of so many pixels each way."""
    about = (
        f"/Type /XObject /Subtype /Image /Width {pixels} /Height {pixels} "
        f"/ColorSpace /DeviceGray /BitsPerComponent 8"
    )
    packed = zlib.compressobj(9)
    row = bytes(pixels)
    data = b"".join(packed.compress(row) for _ in range(pixels)) + packed.flush()
    return _assembled(
        [*_blank_page("q 595 0 0 842 0 0 cm /I1 Do Q", "/XObject << /I1 5 0 R >>"), _object(about, data)]
    )


def png_bomb(pixels: int = 60_000) -> bytes:
    """Return a PNG of some hundred kilobytes that says it has so many pixels each way, and has."""
    packed = zlib.compressobj(9)
    row = bytes(1 + pixels // 8)
    data = b"".join(packed.compress(row) for _ in range(pixels)) + packed.flush()
    header = struct.pack(">IIBBBBB", pixels, pixels, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _png_chunk(*each) for each in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _blank_page(content: str = "", resources: str = "") -> list[bytes]:
    page = (
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        f"/Resources << {resources} >> >>"
    )
    return [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page.encode(),
        _stream("", content.encode()),
    ]


def _stream(about: str, content: bytes) -> bytes:
    return _object(about, zlib.compress(content))


def _object(about: str, packed: bytes) -> bytes:
    return b"<< %b /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (
        about.encode(),
        len(packed),
        packed,
    )


def _assembled(objects: Sequence[bytes], *, trailer: str = "") -> bytes:
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R %b >>\n" % (len(objects) + 1, trailer.encode())
    out += b"startxref\n%d\n%%%%EOF\n" % table
    return bytes(out)
