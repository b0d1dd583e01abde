import pytest

from app.core.emails import deliverable_address, normalise_email


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Ada@Example.COM ", "ada@example.com"),
        ("ada@xn--bcher-kva.example", "ada@bücher.example"),
        ("ADA@BÜCHER.example", "ada@bücher.example"),
        ("driver@depot.local", "driver@depot.local"),
        ("ada+fleet@example.com", "ada+fleet@example.com"),
    ],
)
def test_equal_addresses_become_equal_strings(text: str, expected: str) -> None:
    assert normalise_email(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "ada", "@example.com", "ada@", "a b@example.com", "ada@exa mple.com", "ada@example.com\nBcc: x@y.z"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        normalise_email(text)


def test_a_mail_server_is_told_the_domain_in_ascii() -> None:
    assert deliverable_address("ada@bücher.example") == "ada@xn--bcher-kva.example"
    assert deliverable_address("ada@example.com") == "ada@example.com"
