"""Why a document can't be read: stable codes, and the sentence that goes with each. Pure."""

from collections.abc import Mapping
from typing import Final

from app.features.scans.limits import PAGES_MAX, PIXELS_MAX

SENTENCES: Final[Mapping[str, str]] = {
    "encrypted": "The PDF is protected by a password. Hand in one that is not.",
    "damaged": "The file is broken, cut short, or not what its first bytes say.",
    "no_pages": "The PDF has no pages.",
    "too_many_pages": f"The PDF has more than {PAGES_MAX} pages. Hand in the ones that matter.",
    "too_many_pixels": f"The picture has more than {PIXELS_MAX // 10**6} million pixels. Make it smaller.",
    "too_complex": "Reading it takes more memory or time than a document gets. Hand in a simpler one.",
    "engine_missing": (
        "This installation can't read documents: the worker lacks the packages for it. "
        "Install them with ./cargoflow bootstrap --ocr (or requirements-ocr.lock), and retry the job."
    ),
    "interrupted": "Reading it failed several times, for a reason that may lie with the service.",
}
"""By code. Shown to whoever sees the document."""
