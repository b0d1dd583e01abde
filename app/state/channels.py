"""What events are sent over: kinds of channels, channels, events and their ids.

    RUN = ChannelKind("run", length_max=5_000, ttl_s=3600)
    channel = RUN.of(tenant_id, run_id)          # called run:<id> by clients

A channel belongs to a tenant by construction: under another tenant the same name is another channel. Whether
somebody may read it is for whoever subscribes on their behalf to decide.

An event's id is `<ms>-<number>`. Numbers begin at 1 and have no gaps, so that a missing event is noticed. The
milliseconds are Redis' time and never go back within a channel, so that what comes after Redis lost its data
sorts behind what came before, and an id from before does not pass for one from after.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

START: Final = "0-0"
"""The position before the first event of a channel."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_EVENT_ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """A kind of channel: how many events a channel keeps for those who come back (at least, and up to a tenth
    more), and for how long after the last one.
    """

    name: str
    length_max: int
    ttl_s: int

    def __post_init__(self) -> None:
        """Raise ValueError for what can't be kept."""
        if not _NAME.fullmatch(self.name) or self.length_max < 1 or self.ttl_s < 1:
            raise ValueError(f"{self.name!r} can't be a kind of channel that keeps anything")

    def of(self, tenant_id: str, channel_id: str = "") -> "Channel":
        """Return the channel of this kind with that id, or the tenant's only one.

        Raises ValueError for what is no id: check what clients send with `is_channel_id` first.
        """
        if not _ID.fullmatch(tenant_id) or not (channel_id == "" or is_channel_id(channel_id)):
            raise ValueError(f"there is no channel {self.name} of {tenant_id!r} with the id {channel_id!r}")
        return Channel(self, tenant_id, f"{self.name}:{channel_id}" if channel_id else self.name)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of one tenant. `name` is what clients call it."""

    kind: ChannelKind
    tenant_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `data` is JSON, sent on as it is; `epoch` is its producer's, 0 if it has none."""

    id: str
    type: str
    data: bytes
    epoch: int = 0

    @property
    def position(self) -> tuple[int, int]:
        """Its id in order: milliseconds and number."""
        return position_of(self.id)

    @classmethod
    def from_entry(cls, event_id: bytes, fields: list[bytes]) -> Self:
        """Read an entry of a stream, as `realtime_lua.APPEND` writes them."""
        _, event_type, _, data, _, epoch, *_ = fields
        return cls(event_id.decode(), event_type.decode(), data, int(epoch))

    @classmethod
    def from_message(cls, payload: bytes) -> Self:
        """Read what `realtime_lua.APPEND` publishes."""
        event_id, epoch, event_type, data = payload.split(b"\n", 3)
        return cls(event_id.decode(), event_type.decode(), data, int(epoch))


def is_channel_id(text: str) -> bool:
    """Say whether `text` may be the id in a channel's name."""
    return _ID.fullmatch(text) is not None


def is_event_id(text: str) -> bool:
    """Say whether `text` has the shape of an event's id, or is START."""
    return _EVENT_ID.fullmatch(text) is not None


def is_event_type(text: str) -> bool:
    """Say whether `text` may be the type of an event: a plain name."""
    return _NAME.fullmatch(text) is not None


def position_of(event_id: str) -> tuple[int, int]:
    """Return the milliseconds and the number of an event's id."""
    ms, number = event_id.split("-")
    return int(ms), int(number)
