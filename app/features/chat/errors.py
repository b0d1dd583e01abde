"""What can go wrong in a chat."""

from collections.abc import Mapping
from typing import Final

from app.core.errors import CargoFlowError, ConflictError
from app.features.chat.documents import Outcome

_PROBLEM_MEMBERS: Final = frozenset(("type", "title", "status", "detail", "code", "request_id"))


class RunInProgressError(ConflictError):
    """The conversation's last question is still being answered: `run_id` names the run. Resume it, stop it,
    or wait for its end.
    """

    code, title = "run_in_progress", "Run in progress"

    def __init__(self, run_id: str) -> None:
        """Name the run, so that the client can join it."""
        super().__init__(
            "The last question of this conversation is still being answered.",
            extra={"run_id": run_id},
            headers={"Retry-After": "1"},
        )


class ChatBusyError(CargoFlowError):
    """More answers are being written than this service takes on at once. Nothing was stored; try again."""

    status, code, title = 503, "chat_busy", "Too many answers under way"

    def __init__(self) -> None:
        """Ask for a retry in two seconds."""
        super().__init__("Too many questions are being answered right now.", headers={"Retry-After": "2"})


class ModelError(CargoFlowError):
    """The language model gave no usable answer. The question is kept; ask again."""

    status, code, title = 502, "model_failed", "The model failed"


class ModelUnavailableError(ModelError):
    """The language model can't be reached, or takes no more requests. The question is kept; ask later."""

    status, code, title = 503, "model_unavailable", "The model is unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 10) -> None:
        """Say how soon asking again may help."""
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class ModelTimeoutError(ModelError):
    """The language model was silent for too long. The question is kept; ask again."""

    status, code, title = 504, "model_timeout", "The model took too long"


class RunLostError(CargoFlowError):
    """A replica and Redis were lost at the same time: it can't be said what was shown of the answer."""

    status, code, title = 503, "run_lost", "The answer was lost"

    def __init__(self) -> None:
        """There is nothing to go on from."""
        super().__init__("The answer was interrupted and can't be continued. Ask again.")


class RunFailedError(CargoFlowError):
    """The run ended with this problem, which another replica may have met: told as it was stored."""

    def __init__(self, outcome: Outcome, headers: Mapping[str, str]) -> None:
        """Take over what the problem says, its own status and code included; `headers` go with it."""
        problem = dict(outcome.problem or {})
        extra = {key: value for key, value in problem.items() if key not in _PROBLEM_MEMBERS}
        super().__init__(problem.get("detail", ModelError.title), extra=extra, headers=headers)
        self.status = problem.get("status", ModelError.status)  # type: ignore[misc]
        self.code = problem.get("code", ModelError.code)  # type: ignore[misc]
        self.title = problem.get("title", ModelError.title)  # type: ignore[misc]
