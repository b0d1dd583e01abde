"""Loads shared inside one process."""

import asyncio

from app.state.shared_loads import SharedLoads as Shared
from tests.state.cached_things import Source
from tests.waiting import until


async def begun(source: Source, loads: int) -> None:
    await until(lambda: source.loads == loads)


async def test_any_number_who_wait_share_the_load_that_begins_next() -> None:
    shared, source = Shared(), Source(b"1")
    source.goes_on.clear()
    first = asyncio.create_task(shared.load("a", source.load))
    await begun(source, 1)
    source.body = b"2"
    waiting = [asyncio.create_task(shared.load("a", source.load)) for _ in range(100)]
    await asyncio.sleep(0)
    source.goes_on.set()
    assert await first == b"1"
    assert set(await asyncio.gather(*waiting)) == {b"2"}
    assert source.loads == 2
    assert not shared._gates


async def test_names_do_not_wait_for_each_other() -> None:
    shared, stuck, free = Shared(), Source(), Source(b"free")
    stuck.goes_on.clear()
    waiting = asyncio.create_task(shared.load("a", stuck.load))
    await begun(stuck, 1)
    assert await shared.load("b", free.load) == b"free"
    stuck.goes_on.set()
    await waiting


async def test_a_caller_who_leaves_does_not_take_the_others_along() -> None:
    shared, source = Shared(), Source(b"1")
    source.goes_on.clear()
    leaving = asyncio.create_task(shared.load("a", source.load))
    await begun(source, 1)
    staying = [asyncio.create_task(shared.load("a", source.load)) for _ in range(10)]
    await asyncio.sleep(0)
    leaving.cancel()
    await begun(source, 2)
    next_in_line = staying.pop(0)
    next_in_line.cancel()
    await begun(source, 3)
    source.goes_on.set()
    assert set(await asyncio.gather(*staying)) == {b"1"}
    assert not shared._gates


async def test_a_failure_is_everybodys_who_waited_and_nobodys_who_comes_later() -> None:
    shared, source = Shared(), Source(b"1")
    source.error = RuntimeError("no")
    source.goes_on.clear()
    asking = [asyncio.create_task(shared.load("a", source.load)) for _ in range(20)]
    await begun(source, 1)
    source.goes_on.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, RuntimeError) for answer in answers)
    assert source.loads == 2
    source.error = None
    assert await shared.load("a", source.load) == b"1"
