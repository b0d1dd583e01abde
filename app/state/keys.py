"""Every Redis key and its time to live, so that nothing else has to know how a key is spelled.

All keys start with `cf:`. What belongs to a tenant carries tenant and user in its name: it can't be read
under another one. Scripts touch several keys at once, so a Redis Cluster would need hash tags; CargoFlow
wants one primary (see SCALING.md).
"""

from collections.abc import Sequence

HOT_COPY_TTL_MS = 60_000
"""No copy is believed for longer, whatever else fails."""
HOT_LEASE_TTL_MS = 5_000
"""How long a reader that missed may take to fill; above MongoDB's timeout with room for a retry."""
HOT_WRITER_TTL_MS = 10_000
"""How long a writer that died keeps others from filling; above every store timeout of one write."""
HOT_TOUCH_CLAIM_MS = 5_000
"""How long one reader's claim to extend a copy keeps others from doing the same."""
GENERATION_LEASE_MS = 900
"""Copies are believed only while some replica has reached Redis this recently; below `redis_timeout_s`, see
`hot`.
"""
CACHE_LIFE_MAX_MS = 24 * 3600 * 1000
"""No entry of the cache lives longer, fresh and stale together; generations live at least as long."""
CACHE_LEASE_TTL_MS = 3_000
"""How long a loader that died keeps others from loading."""
CACHE_WRITER_TTL_MS = 10_000
"""How long a writer that died keeps others from filling; above every store timeout of one write."""
CACHE_RETRY_PAUSE_MS = 1_000
"""How long something stale is served after a failed load before the next one tries."""
FEED_TTL_MS = 24 * 3600 * 1000
"""A list that did not grow for so long is learned anew when it is read."""

GENERATION = "cf:hot:generation"
CACHE_STATS = "cf:stats:cache"

HOT_COPY_PREFIX = "cf:hot:c:"
HOT_GUARD_PREFIX = "cf:hot:w:"
RATE_WINDOW_PREFIX = "cf:rl:"
RATE_TWIN_PREFIX = "cf:rl-twin:"
_STREAM_PREFIX = "cf:rt:s:"
_STREAM_GUARD_PREFIX = "cf:rt:g:"
_CACHE_ENTRY_PREFIX = "cf:cache:e:"
_CACHE_OWNER_PREFIX = "cf:cache:o:"
_FEED_PREFIX = "cf:feed:"

JOBS_WAKE = "cf:jobs:wake"
"""Channel on which enqueuing wakes idle workers; nothing is kept."""
JOBS_WHOLE = "cf:jobs:whole"
"""Says that the index of waiting jobs was rebuilt since Redis was last empty; no TTL."""
JOBS_TYPES = "cf:jobs:types"
"""Every type that was indexed; no TTL, bounded by the types there are."""
JOBS_TALLY = "cf:jobs:tally"
"""What workers have counted, by type and outcome; no TTL, bounded by the types there are."""


def jobs_ready(job_type: str) -> str:
    """Jobs of a type that are due, in the order in which to take them; no TTL, see `job_index`."""
    return f"cf:jobs:ready:{job_type}"


def jobs_later(job_type: str) -> str:
    """Jobs of a type to look at later, by when; no TTL, see `job_index`."""
    return f"cf:jobs:later:{job_type}"


def hot_copy(name: str) -> str:
    """The hot copy of the document called `name`; TTL at most HOT_COPY_TTL_MS."""
    return f"{HOT_COPY_PREFIX}{name}"


def hot_guard(name: str) -> str:
    """Who is writing or filling that copy; TTL HOT_WRITER_TTL_MS or HOT_LEASE_TTL_MS."""
    return f"{HOT_GUARD_PREFIX}{name}"


def rate_window(policy: str, subject: str) -> str:
    """The counter of one limit for one subject; TTL is the limit's window."""
    return f"{RATE_WINDOW_PREFIX}{policy}:{subject}"


def rate_twin(policy: str, subject: str, twin: str) -> str:
    """Says that a request of that name was counted by the limit already; ends with the window that did."""
    return f"{RATE_TWIN_PREFIX}{policy}:{subject}:{twin}"


def login_name(login_id: str) -> str:
    """Name of the hot copy of a login session."""
    return f"login:{login_id}"


def api_key_name(key_id: str) -> str:
    """Name of the hot copy of an API key."""
    return f"apikey:{key_id}"


def owner(tenant_id: str, user_id: str) -> str:
    """The part of a name that says whose it is."""
    return f"{tenant_id}:{user_id}"


def user_name(tenant_id: str, user_id: str) -> str:
    """Name of the hot copy of what the edge must know of a user; the edge script builds it from a
    credential's owner.
    """
    return f"user:{owner(tenant_id, user_id)}"


def owned_name(kind: str, tenant_id: str, user_id: str, document_id: str) -> str:
    """Name of the hot copy of what one user owns; the edge script builds it from a credential's owner."""
    return f"{kind}:{owner(tenant_id, user_id)}:{document_id}"


def cache_entry(kind: str, owner_ids: Sequence[str], digest: str) -> str:
    """An entry of the cache; TTL its fresh and its stale time, or CACHE_LIFE_MAX_MS until it is filled."""
    return f"{_CACHE_ENTRY_PREFIX}{':'.join((kind, *owner_ids, digest))}"


def cache_owner(owner_ids: Sequence[str]) -> str:
    """The generations of what is cached for a tenant, a user of it, or (no id) everybody; TTL
    CACHE_LIFE_MAX_MS from the last load.
    """
    return f"{_CACHE_OWNER_PREFIX}{':'.join(owner_ids)}"


def stream(tenant_id: str, channel: str) -> str:
    """The events of a tenant's channel, and the name under which they are published; TTL the channel's kind's
    from the last event.
    """
    return f"{_STREAM_PREFIX}{tenant_id}:{channel}"


def stream_guard(tenant_id: str, channel: str) -> str:
    """The highest epoch of a channel and the callers' ids of the events it holds; TTL as the stream's."""
    return f"{_STREAM_GUARD_PREFIX}{tenant_id}:{channel}"


def feed(collection: str, tenant_id: str, user_id: str = "") -> str:
    """The dates of the newest entries of a tenant's or a user's list; TTL FEED_TTL_MS from the last one."""
    return f"{_FEED_PREFIX}{collection}:{tenant_id}:{user_id}"
