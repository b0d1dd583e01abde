"""Small arrays inside a document whose entries are hashes with an end: `[{hash, until}, …]`.

For secrets that stay good for a while after something else happened, where several may be good at once. Ends
are set by MongoDB's own clock and compared with one that follows it. Filters and expressions for update
pipelines; nothing here asks a store.

Dates are compared as numbers because the local cluster's engine finds no order between a stored date and
`$$NOW`.
"""

from datetime import datetime

from app.state.mongo import Document, from_now, literal

_ENTRY_UNEXPIRED: Document = {"$gt": [{"$toLong": "$$this.until"}, {"$toLong": "$$NOW"}]}


def holds_unexpired(array: str, entry_hash: str, now: datetime) -> Document:
    """Return a filter: `array` has an entry with that hash whose end lies after `now`."""
    return {array: {"$elemMatch": {"hash": entry_hash, "until": {"$gt": now}}}}


def with_entry(array: str, entry_hash: str, *, life_ms: int, entries_max: int, **fields: str) -> Document:
    """Return a pipeline expression for `array` with one entry more, without those that ended, and bounded."""
    entry = {
        "hash": literal(entry_hash),
        "until": from_now(life_ms),
        **{name: literal(value) for name, value in fields.items()},
    }
    kept = {"$filter": {"input": f"${array}", "cond": _ENTRY_UNEXPIRED}}
    return {"$slice": [{"$concatArrays": [kept, [entry]]}, -entries_max]}
