"""Checking a value against a model outside of FastAPI, with the field errors that a body would get."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from app.core.errors import ValidationFailedError

ERRORS_MAX: Final = 50
"""How many field errors a refusal lists."""
_FIELD_MAX_CHARACTERS: Final = 200
_MESSAGE_MAX_CHARACTERS: Final = 300

Model = TypeVar("Model", bound=BaseModel)
FieldErrors = list[dict[str, str]]


def field_errors(errors: Sequence[Mapping[str, Any]], *, below: int = 0) -> FieldErrors:
    """Return `{"field": "cargo.weight_kg", "message": …}` for each of pydantic's errors.

    `below`: how many parts of each location to leave out, such as FastAPI's "body".
    """
    return [
        {"field": _place(row["loc"], below), "message": _message(str(row["msg"]))}
        for row in errors[:ERRORS_MAX]
    ]


def validated(model: type[Model], value: Any) -> Model:
    """Return the model that `value` is. Raises ValidationFailedError, naming each field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refused(field_errors(error.errors(include_url=False))) from None


def refused(errors: FieldErrors) -> ValidationFailedError:
    """Return the error for these fields."""
    return ValidationFailedError("The request breaks a rule; 'errors' says where.", errors=list(errors))


def _place(location: tuple[str | int, ...], below: int) -> str:
    inner = location[below:] or location or ("body",)
    return _text(".".join(str(part) for part in inner), _FIELD_MAX_CHARACTERS)


def _message(message: str) -> str:
    return _text(message.removeprefix("Value error, "), _MESSAGE_MAX_CHARACTERS)


def _text(text: str, characters_max: int) -> str:
    return text[:characters_max].encode(errors="replace").decode()
