"""How a caller says which version of a document it means to write over."""

from collections.abc import Callable
from typing import TypeAlias

VersionCheck: TypeAlias = Callable[[int], None]
"""Called with the version that is about to be written over; raises if the caller meant another one.

It is asked again whenever somebody else wrote in between. `http.etags.WriteCondition.check` is one.
"""


def any_version(_: int) -> None:
    """Accept whatever is there."""
