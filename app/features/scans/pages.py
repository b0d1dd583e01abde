"""What a reader gets out of a document: pages of rows. Pure, and imported by the process that reads.

A row is what a person would read from left to right, columns included: label and value of a form stand in one
row though the engine sees two blocks. It has the confidence of the engine, 1.0 where the document itself says
what its letters are (a text layer).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Final, Literal, Self

Source = Literal["text", "ocr"]

COLUMN_GAP: Final = "  "
"""Between words that stand far apart."""
_SAME_ROW: Final = 0.6
"""Of a word's height: how far its middle may lie from the row's."""
_FAR_APART: Final = 1.5
"""Of a word's height."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word on a page, in pixels from its upper left corner."""

    text: str
    confidence: float
    """0 to 1."""
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Row:
    """A line of text across the page."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was read. `number` counts from 1."""

    number: int
    source: Source
    rows: tuple[Row, ...]

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Self:
        """Read what `to_wire` made."""
        return cls(wire["number"], wire["source"], tuple(Row(text, sure) for text, sure in wire["rows"]))

    def to_wire(self) -> dict[str, Any]:
        """Return it JSON-like."""
        rows = [[row.text, row.confidence] for row in self.rows]
        return {"number": self.number, "source": self.source, "rows": rows}


def rows_of(words: Iterable[Word], *, slope: float = 0.0) -> tuple[Row, ...]:
    """Put words into rows, top to bottom; `slope` is how much a line of text falls a pixel to the right.

    Words belong to one row if their middles do once the page is turned level. O(n log n).
    """
    level = sorted(words, key=lambda word: _middle(word, slope))
    groups: list[list[Word]] = []
    for word in level:
        if groups and _belongs(word, groups[-1], slope):
            groups[-1].append(word)
        else:
            groups.append([word])
    return tuple(_row(sorted(group, key=lambda word: word.left)) for group in groups)


def slope_of(baselines: Iterable[tuple[tuple[float, float], tuple[float, float]]]) -> float:
    """Return how much lines of text fall a pixel to the right: the median of those that are long enough."""
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in baselines if x2 - x1 > abs(y2 - y1)]
    return median(slopes) if slopes else 0.0


def _middle(word: Word, slope: float) -> float:
    return (word.top + word.bottom) / 2 - slope * (word.left + word.right) / 2


def _belongs(word: Word, group: Sequence[Word], slope: float) -> bool:
    middle = sum(_middle(other, slope) for other in group) / len(group)
    height = median(other.bottom - other.top for other in (*group, word))
    return abs(_middle(word, slope) - middle) <= height * _SAME_ROW


def _row(words: Sequence[Word]) -> Row:
    parts = [words[0].text]
    for before, word in pairwise(words):
        gap = word.left - before.right
        parts.append(COLUMN_GAP if gap > (word.bottom - word.top) * _FAR_APART else " ")
        parts.append(word.text)
    weights = [max(len(word.text), 1) for word in words]
    sure = sum(word.confidence * weight for word, weight in zip(words, weights, strict=True)) / sum(weights)
    return Row("".join(parts), round(sure, 3))
