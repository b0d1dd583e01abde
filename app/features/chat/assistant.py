"""The built-in assistant: no language model, but plain parsing, and honest about it.

It understands a handful of requests in English (`questions`), calls the same tools as a model would, and
says in a few sentences what they returned. Whatever else it is asked, it says what it can do. The same
question and the same results of tools give the same words, so a run that is taken over goes on with them.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import orjson

from app.core.clock import Clock
from app.core.money import written
from app.features.chat.documents import Call
from app.features.chat.models import Calls, Part, Prompt
from app.features.chat.questions import ASSUMED_WEIGHT_KG, Request, understand

HELP: Final = """I'm CargoFlow's built-in assistant: no language model, but I understand a few things. Ask me:

- "Where is BK-7K3M-9QTX?": the status of a booking
- "List my bookings", or "list my delivered bookings"
- "What does 8400 kg from Hamburg to Turin cost, reefer, next Tuesday?": a price
- "What is the status of my application?", or "list approved applications": trade credit
- "How much credit do I have?": your credit lines
- "Show my addresses": your address book"""
_NOT_UNDERSTOOD: Final = "I did not understand that.\n\n"
_ASSUMED: Final = (
    f"You named no weight, so this is for {ASSUMED_WEIGHT_KG:,} kg. "
    'Name yours, such as "8400 kg from Hamburg to Turin".'
)


class BuiltInAssistant:
    """A `Model` that is none."""

    history_turns = 0

    def __init__(self, clock: Clock) -> None:
        """`clock` tells what "tomorrow" is: days are those of UTC."""
        self._clock = clock

    async def reply(self, prompt: Prompt) -> AsyncGenerator[Part, None]:
        """Yield calls of tools first, and a text once they have answered, line by line."""
        request = understand(prompt.question, self._clock.now().date())
        if request.tool and not prompt.steps:
            arguments = orjson.dumps(request.arguments).decode()
            yield Calls((Call("call_1", request.tool, arguments),))
            return
        text = _say(request, prompt).removeprefix(prompt.partial)
        for line in text.splitlines(keepends=True):
            yield line
            await asyncio.sleep(0)  # so that the first is on its way while the next are written


def _say(request: Request, prompt: Prompt) -> str:
    if not request.tool:
        return HELP if request.topic == "help" else _NOT_UNDERSTOOD + HELP
    result: dict[str, Any] = orjson.loads(prompt.steps[-1].results[-1])
    if "error" in result:
        return _refusal(request, result)
    said = _SENTENCES[request.tool](result)
    return f"{said}\n{_ASSUMED}" if request.assumes_weight else said


def _refusal(request: Request, result: Mapping[str, Any]) -> str:
    if result["error"] == "not_found":
        named = request.arguments.get("booking") or request.arguments.get("application_id", "")
        return f"I find no {request.topic} {named} that you may see."
    if result["error"] == "forbidden":
        return str(result["detail"])
    if result["error"] == "validation_failed":
        reasons = "; ".join(f"{row['field']}: {row['message']}" for row in result.get("errors", ()))
        return f"That does not work: {reasons or result['detail']}."
    return f"I could not look that up just now ({result['error']}). Please ask again."


def _booking(result: Mapping[str, Any]) -> str:
    last = result["events"][-1]
    lines = [
        f"{result['number']} is {_words(result['status'])}, since {last['at'][:16].replace('T', ' ')} UTC.",
        f"It goes from {result['from']} to {result['to']}, pick-up {result['pickup_at'][:10]}.",
        f"Price: {_money(result['price'])}, {_words(result['equipment'])}.",
    ]
    return "\n".join(lines)


def _bookings(result: Mapping[str, Any]) -> str:
    if not result["bookings"]:
        return "There are no such bookings."
    rows = [
        f"- {row['number']}: {_words(row['status'])}, {row['from']} to {row['to']}, "
        f"pick-up {row['pickup_at'][:10]}, {_money(row['price'])}"
        for row in result["bookings"]
    ]
    more = ["There are more; the list of bookings shows them all."] if result["more"] else []
    return "\n".join(["The newest bookings:", *rows, *more])


def _quote(result: Mapping[str, Any]) -> str:
    lines = [f"- {line['description']}: {_money(line['amount'])}" for line in result["price_lines"]]
    return "\n".join(
        [
            f"That would cost {_money(result['price'])} for {result['distance_km']} km:",
            *lines,
            "Nothing is booked; the price is that of this moment.",
        ]
    )


def _applications(result: Mapping[str, Any]) -> str:
    found = result["applications"]
    if not found:
        return "There are no such applications."
    lines = [
        f"- {row['company_name']}: {_words(row['status'])} since {row['updated_at'][:10]}, "
        f"{_money(row['requested_amount'])} at {row['terms_days']} days ({row['id']})"
        for row in found
    ]
    said = [
        f"  {event['at'][:10]}, {_words(event['status'])}: {event['note']}"
        for event in result.get("history", ())
        if event["note"]
    ]
    more = ["There are more; the list of applications shows them all."] if result["more"] else []
    title = [] if "history" in result else ["Applications for credit, newest first:"]
    return "\n".join([*title, *lines, *said, *more])


def _addresses(result: Mapping[str, Any]) -> str:
    if not result["addresses"]:
        return "Your address book is empty."
    rows = [
        f"- {row['label']}{' (default)' if row['is_default'] else ''}: {row['line1']}, "
        f"{row['postal_code']} {row['city']}, {row['country']}"
        for row in result["addresses"]
    ]
    return "\n".join(["Your address book:", *rows, *(["There are more."] if result["more"] else [])])


def _credit(result: Mapping[str, Any]) -> str:
    if not result["credit_lines"]:
        return "You have no credit line. Apply for credit; it is there once that is approved."
    return "\n".join(
        f"{_money(line['available'])} of your credit line of {_money(line['limit'])} is available: "
        f"{_money(line['used'])} is used, and {_money(line['held'])} is held for bookings under way."
        for line in result["credit_lines"]
    )


_SENTENCES: Final = {
    "get_booking": _booking,
    "list_bookings": _bookings,
    "quote": _quote,
    "my_addresses": _addresses,
    "application_status": _applications,
    "my_credit": _credit,
}


def _money(money: Mapping[str, Any]) -> str:
    return written(money["amount_minor"], money["currency"])


def _words(code: str) -> str:
    return code.replace("_", " ")
