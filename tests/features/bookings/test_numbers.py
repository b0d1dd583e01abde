"""Numbers that people can read out."""

from hypothesis import given
from hypothesis import strategies as st

from app.features.bookings.numbers import _ALPHABET, new_number, read_number


def test_a_number_is_read_as_it_is_written_and_as_people_write_it() -> None:
    for _ in range(200):
        number = new_number()
        assert read_number(number) == number
        sloppy = number.lower().replace("-", "").replace("0", "o").replace("1", "l")
        assert read_number(f" {sloppy} ") == number


@given(place=st.integers(0, 7), letter=st.sampled_from(_ALPHABET))
def test_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    number = new_number()
    letters = list(number.removeprefix("BK-").replace("-", ""))
    if letters[place] != letter:
        letters[place] = letter
        assert read_number("BK-" + "".join(letters)) is None


def test_what_is_no_number_is_none() -> None:
    for text in ("", "BK-", "PO-4711", "BK-UUUU-UUUU", "BK-0000-000", "BK-0000-00000"):
        assert read_number(text) is None


def test_numbers_do_not_repeat() -> None:
    assert len({new_number() for _ in range(1000)}) == 1000
