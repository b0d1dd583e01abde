"""What is pure about the chat: parsing questions, reading completions, prompts, continuations."""

from datetime import date
from typing import Any

import pytest

from app.features.chat.completions import CompletionReader, CutOffError
from app.features.chat.documents import Call, Step
from app.features.chat.errors import ModelError
from app.features.chat.models import Calls, Continuation, Prompt, Said
from app.features.chat.prompts import messages_for
from app.features.chat.questions import READ_CHARACTERS, understand
from app.features.chat.runs import title_of

THURSDAY = date(2026, 11, 26)


@pytest.mark.parametrize(
    ("question", "tool", "arguments"),
    [
        ("Where is BK-7K3M-9QTX?", "get_booking", {"booking": "BK-7K3M-9QTX"}),
        ("status of bk7k3m9qtx please", "get_booking", {"booking": "bk7k3m9qtx"}),
        ("list my bookings", "list_bookings", {}),
        ("which loads are in transit?", "list_bookings", {"status": "in_transit"}),
        ("show my canceled shipments", "list_bookings", {"status": "cancelled"}),
        ("Show my addresses", "my_addresses", {}),
        ("What is the status of my application?", "application_status", {}),
        ("list the applications in review", "application_status", {"status": "in_review"}),
        ("How much credit do I have?", "my_credit", {}),
        ("what do I owe", "my_credit", {}),
        ("bookings on credit", "list_bookings", {}),
        (
            "What does 8400 kg from Hamburg to Turin cost, reefer, on 2026-12-01?",
            "quote",
            {
                "origin": "Hamburg",
                "destination": "Turin",
                "weight_kg": 8400.0,
                "equipment": "reefer",
                "pickup_at": "2026-12-01T12:00:00Z",
            },
        ),
        (
            "quote from Frankfurt, Germany to New York (US), 1.5 t, dry van, hazardous",
            "quote",
            {
                "origin": "Frankfurt",
                "origin_country": "DE",
                "destination": "New York",
                "destination_country": "US",
                "weight_kg": 1500.0,
                "equipment": "dry_van",
                "hazardous": True,
            },
        ),
        (
            "what would Hamburg\u2013Turin cost for 8,400 kg?",
            "quote",
            {"origin": "Hamburg", "destination": "Turin", "weight_kg": 8400.0},
        ),
        (
            "what would Hamburg\u2013Turin cost next Tuesday?",
            "quote",
            {
                "origin": "Hamburg",
                "destination": "Turin",
                "weight_kg": 10_000,
                "pickup_at": "2026-12-01T12:00:00Z",
            },
        ),
        (
            "What would Hamburg to New York cost tomorrow, 2 t?",
            "quote",
            {
                "origin": "Hamburg",
                "destination": "New York",
                "weight_kg": 2000.0,
                "pickup_at": "2026-11-27T12:00:00Z",
            },
        ),
        (
            "price from hamburg to turin on thursday",
            "quote",
            {
                "origin": "hamburg",
                "destination": "turin",
                "weight_kg": 10_000,
                "pickup_at": "2026-12-03T12:00:00Z",
            },
        ),
        (
            "rate for 5 t from Hamburg to Turin in 2 weeks",
            "quote",
            {
                "origin": "Hamburg",
                "destination": "Turin",
                "weight_kg": 5000.0,
                "pickup_at": "2026-12-10T12:00:00Z",
            },
        ),
    ],
)
def test_the_assistant_understands(question: str, tool: str, arguments: dict[str, Any]) -> None:
    request = understand(question, THURSDAY)
    assert (request.tool, request.arguments) == (tool, arguments)


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("help", "help"),
        ("what is the price to pay", "unknown"),
        ("what is the meaning of life", "unknown"),
        ("from from to to", "unknown"),
        ("'; DROP TABLE bookings; --", "bookings"),
        ("kg " * 2000, "unknown"),
        ("x " * 200 + "list my bookings", "unknown"),
    ],
)
def test_what_it_does_not_understand_calls_no_tool_but_a_harmless_one(question: str, topic: str) -> None:
    assert understand(question, THURSDAY).topic == topic


@pytest.mark.timeout(20)  # should a pattern try every split
@pytest.mark.parametrize(
    "text",
    [
        "from " * 1600,
        "a" * 8000,
        "from a" + " ." * 3000,
        "1 " * 4000,
        "A-" * 4000,
        "Aa " * 2000,
        "Aa to " * 1000,
    ],
)
def test_no_more_of_a_question_is_parsed_than_takes_a_moment(text: str) -> None:
    for question in (text, f"price {text}"):
        assert understand(question, THURSDAY) == understand(question[:READ_CHARACTERS], THURSDAY)


@pytest.mark.parametrize(
    ("partial", "said", "new"),
    [
        ("", ["one ", "two"], "one two"),
        ("one ", ["two ", "three"], "two three"),
        ("one two ", ["one ", "two ", "three"], "three"),
        ("one two ", ["one two three"], "three"),
        ("one two ", ["one two "], ""),
        ("one two ", ["one"], "one"),
        ("one two ", ["one once"], "one once"),
        ("one ", [], ""),
    ],
)
def test_a_continuation_is_let_through_and_a_repetition_left_out(
    partial: str, said: list[str], new: str
) -> None:
    continuation = Continuation(partial)
    assert "".join([*(continuation.feed(piece) for piece in said), continuation.end()]) == new


def test_old_messages_leave_a_prompt_first_and_the_question_never() -> None:
    history = [Said("user" if n % 2 == 0 else "assistant", f"{n} " + "x" * 300) for n in range(20)]
    step = Step(5, (Call("c1", "quote", "{}"),), ('{"price": 1}',))
    prompt = Prompt(history, "the question", (step,), ("Look.",), "so far", ())
    messages = messages_for(prompt, tokens_max=1200)
    roles = [message["role"] for message in messages]
    assert roles[0] == "system"
    assert roles[1] == "user"
    assert roles[-4:] == ["user", "assistant", "tool", "assistant"]
    assert messages[-1]["content"] == "so far"
    kept = [message["content"].split()[0] for message in messages[1:-4]]
    assert kept == [str(n) for n in range(20 - len(kept), 20)]
    assert 0 < len(kept) < 20
    few = messages_for(prompt, tokens_max=1)
    assert [message["role"] for message in few] == ["system", "user", "assistant", "tool", "assistant"]


def test_a_call_that_comes_in_parts_is_put_together() -> None:
    reader = CompletionReader()
    lines = [
        '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"qu","arguments":"{"}}]}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"ote","arguments":"}"}}]}}]}',
        '{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}',
    ]
    assert [part for line in lines for part in reader.feed(f"data: {line}")] == []
    assert list(reader.end()) == [Calls((Call("a", "quote", "{}"),))]


@pytest.mark.parametrize(
    "data",
    ["{", "[]", "3", '{"choices": 3}', '{"choices": [3]}', '{"error": "x"}', '{"usage": {"a": 1}}', "null"],
)
def test_what_is_no_chunk_is_a_model_error(data: str) -> None:
    with pytest.raises(ModelError):
        list(CompletionReader().feed(f"data: {data}"))


def test_a_stream_that_ends_without_a_reason_was_cut_off() -> None:
    reader = CompletionReader()
    assert list(reader.feed('data: {"choices":[{"delta":{"content":"a"}}]}')) == ["a"]
    with pytest.raises(CutOffError):
        list(reader.end())


def test_a_title_is_the_beginning_of_the_question() -> None:
    assert title_of("  two\n lines ") == "two lines"
    assert title_of("x" * 100) == "x" * 59 + "\u2026"
