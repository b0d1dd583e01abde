import secrets

import pytest

from app.core.errors import UnauthenticatedError
from app.core.ids import new_id
from app.core.refresh_tokens import RefreshTokens
from app.core.settings import Settings

OLD, NEW = secrets.token_urlsafe(48), secrets.token_urlsafe(48)


def tokens(secret: str = OLD, previous: str = "") -> RefreshTokens:
    return RefreshTokens(Settings(jwt_secret=secret, jwt_secret_previous=previous))


def test_two_processes_with_one_secret_compute_the_same_successor() -> None:
    first = tokens().first(new_id("lgn"))
    assert tokens().successors(first) == tokens().successors(first)
    assert tokens().successors(first)[0].text != first.text
    assert tokens().successors(first)[0].generation == 2


def test_the_successor_depends_on_the_token_it_replaces() -> None:
    login_id = new_id("lgn")
    one, other = tokens().first(login_id), tokens().first(login_id)
    assert tokens().successors(one) != tokens().successors(other)


def test_a_token_of_ours_is_recognised() -> None:
    token = tokens().successors(tokens().first(new_id("lgn")))[0]
    assert tokens().parse(token.text) == token


def test_a_token_signed_with_the_previous_secret_is_still_recognised() -> None:
    token = tokens(OLD).first(new_id("lgn"))
    assert tokens(NEW, previous=OLD).parse(token.text) == token
    with pytest.raises(UnauthenticatedError):
        tokens(NEW).parse(token.text)


def test_the_successor_given_under_the_previous_secret_is_among_the_candidates() -> None:
    token = tokens(OLD).first(new_id("lgn"))
    given = tokens(OLD).successors(token)[0]
    candidates = tokens(NEW, previous=OLD).successors(token)
    assert given in candidates[1:]
    assert candidates[0] == tokens(NEW).successors(token)[0]


def test_a_token_with_any_character_changed_is_refused() -> None:
    text = tokens().first(new_id("lgn")).text
    for position in range(len(text)):
        changed = "A" if text[position] != "A" else "B"
        with pytest.raises(UnauthenticatedError):
            tokens().parse(text[:position] + changed + text[position + 1 :])


@pytest.mark.parametrize("text", ["", "cfr_", "x" * 10_000, "cfr_lgn_1.1.a.b", "\0", "ÄÖ" * 40, "cfr_\n"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        tokens().parse(text)


def test_a_token_does_not_show_in_its_representation() -> None:
    token = tokens().first(new_id("lgn"))
    assert token.text not in repr(token)
