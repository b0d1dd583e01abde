"""Small arrays inside a document whose entries are hashes with an end: `[{hash, until}, …]`.

For secrets that stay good for a while after something else happened, where several may be good at once. All
on MongoDB's own clock. Expressions for filters and update pipelines; nothing here asks a store.

Dates are compared as numbers because the local cluster's engine finds no order between a stored date and
`$$NOW`.
"""

from app.state.mongo import Document, from_now, literal

_ENTRY_UNEXPIRED: Document = {"$gt": [{"$toLong": "$$this.until"}, {"$toLong": "$$NOW"}]}


def holds_unexpired(array: str, entry_hash: str) -> Document:
    """Return a condition for `$expr`: `array` has an entry with that hash whose end lies ahead."""
    wanted = {"$and": [{"$eq": ["$$this.hash", literal(entry_hash)]}, _ENTRY_UNEXPIRED]}
    return {"$gt": [{"$size": {"$filter": {"input": f"${array}", "cond": wanted}}}, 0]}


def with_entry(array: str, entry_hash: str, *, life_ms: int, entries_max: int, **fields: str) -> Document:
    """Return a pipeline expression for `array` with one entry more, without those that ended, and bounded."""
    entry = {
        "hash": literal(entry_hash),
        "until": from_now(life_ms),
        **{name: literal(value) for name, value in fields.items()},
    }
    kept = {"$filter": {"input": f"${array}", "cond": _ENTRY_UNEXPIRED}}
    return {"$slice": [{"$concatArrays": [kept, [entry]]}, -entries_max]}
