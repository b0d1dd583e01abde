"""The one way in which starting something fails."""


class StartFailedError(Exception):
    """A process did not come to serve: which one, why in one line, and the last lines of its log."""

    def __init__(self, name: str, reason: str, log_tail: list[str] | None = None) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.reason = reason
        self.log_tail = log_tail or []
