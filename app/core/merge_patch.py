"""JSON Merge Patch, RFC 7396: a patch that looks like the document it changes."""

from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` changed by `patch`; neither is modified.

    Objects are merged member by member, `null` removes a member, and anything else replaces what was there.
    Arrays are replaced whole. Recurses as deep as `patch` does, which the edge bounds.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
