"""A draft's content: the form, how far it has got, and which saves it has seen. Pure.

It is the data of a session of type `booking_draft`: {"form": {…}, "step": int or null, "clients":
{client_id: highest seq}, "saved_at": "…Z", "places": {"pickup": {…}, "delivery": {…}}}, the last only while
it is being submitted. All in one document, so that a save and the memory of it are one write.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Self

import orjson
from pydantic import ValidationError

from app.core.errors import NotFoundError
from app.core.merge_patch import merge_patch
from app.core.moments import timestamp
from app.features.bookings.schemas import NewBooking
from app.features.bookings.service import Places
from app.http.validation import FieldErrors, field_errors
from app.state.session_documents import SessionType

TYPE: Final[SessionType] = "booking_draft"
CLIENTS_MAX: Final = 20
"""How many tabs and devices a draft remembers: those that saved last. Who comes back after twenty others have
saved is taken for new, so that a save of theirs that was still under way then would be applied late.
"""
_PLACES: Final = ("pickup", "delivery")


@dataclass(frozen=True, slots=True)
class Save:
    """What somebody typed: a merge patch of the form, and where it belongs in their sequence of saves."""

    patch: Mapping[str, Any]
    step: int | None = None
    client_id: str | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The content of a draft. `places` holds the addresses in full once it is submitted, and closes it."""

    data: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    clients: Mapping[str, int] = field(default_factory=dict)
    saved_at: str = ""
    places: Places | None = None

    @classmethod
    def from_session(cls, data: Mapping[str, Any]) -> Self:
        """Read a session's data."""
        return cls(
            data=data["form"],
            step=data["step"],
            clients=data["clients"],
            saved_at=data["saved_at"],
            places=data.get("places"),
        )

    @property
    def session_data(self) -> dict[str, Any]:
        """The data of the session that holds it."""
        data = {"form": self.data, "step": self.step, "clients": self.clients, "saved_at": self.saved_at}
        return data if self.places is None else {**data, "places": self.places}

    def has_seen(self, save: Save) -> bool:
        """Say whether this save, or a later one of the same client, is in already."""
        if save.client_id is None or save.seq is None:
            return False
        return self.clients.get(save.client_id, -1) >= save.seq

    def with_save(self, save: Save, now: datetime) -> Self:
        """Return the form with a save that it has not seen."""
        clients = dict(self.clients)
        if save.client_id is not None and save.seq is not None:
            clients.pop(save.client_id, None)
            clients[save.client_id] = save.seq
            for longest_silent in list(clients)[:-CLIENTS_MAX]:
                del clients[longest_silent]
        return replace(
            self,
            data=merge_patch(self.data, save.patch),
            step=self.step if save.step is None else save.step,
            clients=clients,
            saved_at=timestamp(now),
        )

    def check(self) -> tuple[NewBooking | None, FieldErrors, FieldErrors]:
        """Return the booking that it makes, or else what is missing and what is filled in wrongly."""
        form = dict(self.data)
        for name in _PLACES:
            if isinstance(form.get(name), dict) and "address_id" in form[name]:
                form[name] = {"address_id": form[name]["address_id"]}
        try:
            return NewBooking.model_validate(form), [], []
        except ValidationError as error:
            rows = error.errors(include_url=False)
        missing = [row for row in rows if row["type"] == "missing"]
        invalid = [row for row in rows if row["type"] != "missing"]
        return None, field_errors(missing), field_errors(invalid)


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft as of its `version`."""

    id: str
    version: int
    expires_at: str
    form: Form

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """Read the answer that shows the session. Raises NotFoundError for one of another type."""
        session = orjson.loads(body)
        if session["type"] != TYPE:
            raise NotFoundError
        return cls(
            session["id"], session["version"], session["expires_at"], Form.from_session(session["data"])
        )

    def shown(self, *, applied: bool = True) -> dict[str, Any]:
        """Return the draft as it is answered; `applied`: whether the save that it answers is in."""
        _, missing, invalid = self.form.check()
        return {
            "id": self.id,
            "data": self.form.data,
            "step": self.form.step,
            "version": self.version,
            "saved_at": self.form.saved_at,
            "expires_at": self.expires_at,
            "applied": applied,
            "submitted": self.form.places is not None,
            "missing": [row["field"] for row in missing],
            "invalid": invalid,
        }
