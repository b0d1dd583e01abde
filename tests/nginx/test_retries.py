"""What a client sees of a replica that is dead, dies or freezes, and how often its request arrives."""

import asyncio
import collections
from pathlib import Path

import httpx
import pytest

from tests.nginx.edge import Edge, running_edge
from tests.nginx.peer import Answer, Peer, Received, silent_for, stream_until

PATH = "/api/v1/bookings"
CHAT = ["/api/v1/chat", "/api/v1/chat/stream"]


def deliveries(peers: list[Peer]) -> collections.Counter[str]:
    """How often each request, told by its X-Request-ID, was received by any peer."""
    return collections.Counter(one.header("x-request-id") or "" for peer in peers for one in peer.received)


async def send(edge: Edge, method: str, name: str, *, key: bool = False, path: str = PATH) -> httpx.Response:
    headers = {"X-Request-ID": name} | ({"Idempotency-Key": name} if key else {})
    body = None if method in {"GET", "DELETE"} else b'{"n":1}'
    return await edge.client.request(method, path, headers=headers, content=body)


async def send_until_a_peer_died_of_it(
    edge: Edge, method: str, *, key: bool = False, path: str = PATH
) -> httpx.Response:
    """Send one request after another until the first peer, which hangs up on it, was given one."""
    edge.peers[0].mode = "die"
    for number in range(10):
        answer = await send(edge, method, f"request-{number}", key=key, path=path)
        if edge.peers[0].received:
            return answer
    pytest.fail("the dying peer was given nothing")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_two_dead_replicas_of_three_cost_no_method_a_failure(tmp_path: Path, method: str) -> None:
    async with running_edge(tmp_path, peers=3) as edge:
        for peer in edge.peers[:2]:
            await peer.stop()
        answers = [await send(edge, method, f"request-{number}") for number in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 12
    assert edge.peers[2].count(method) == 12


async def test_a_get_whose_replica_dies_under_it_is_answered_by_another(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=2) as edge:
        answer = await send_until_a_peer_died_of_it(edge, "GET")
    assert answer.status_code == 200
    assert answer.headers["X-Replica"] == "peer-2"


async def test_a_post_with_an_idempotency_key_is_replayed_whole_on_another_replica(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=2) as edge:
        answer = await send_until_a_peer_died_of_it(edge, "POST", key=True)
        first, second = edge.peers[0].received[-1], edge.peers[1].received[-1]
    assert answer.status_code == 200
    assert second.body == first.body == b'{"n":1}'
    assert second.header("idempotency-key") == first.header("idempotency-key")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_write_without_a_key_is_never_sent_twice(tmp_path: Path, method: str) -> None:
    async with running_edge(tmp_path, peers=3) as edge:
        answer = await send_until_a_peer_died_of_it(edge, method)
        counted = deliveries(list(edge.peers))
    assert answer.status_code == 502
    assert answer.json()["code"] == "bad_gateway"
    assert set(counted.values()) == {1}


@pytest.mark.parametrize("path", CHAT)
async def test_a_keyed_turn_of_the_chat_is_sent_twice_at_most_and_without_a_key_once(
    tmp_path: Path, path: str
) -> None:
    async with running_edge(tmp_path, peers=3) as edge:
        for peer in edge.peers:
            peer.mode = "die"
        assert (await send(edge, "POST", "keyed-turn", key=True, path=path)).status_code == 502
        assert (await send(edge, "POST", "plain-turn", path=path)).status_code == 502
        counted = deliveries(list(edge.peers))
    assert counted == {"keyed-turn": 2, "plain-turn": 1}


@pytest.mark.parametrize("path", CHAT)
async def test_a_keyed_turn_of_the_chat_is_replayed_whole_on_another_replica_and_streamed(
    tmp_path: Path, path: str
) -> None:
    release = asyncio.Event()
    async with running_edge(tmp_path, peers=2) as edge:
        edge.peers[0].mode = "die"
        edge.peers[1].handlers[path] = stream_until(release)
        for number in range(10):
            headers = {"Idempotency-Key": f"turn-{number}"}
            async with edge.client.stream("POST", path, headers=headers, content=b'{"n":1}') as answer:
                lines = answer.aiter_lines()
                assert [await anext(lines) for _ in range(3)] == ["event: delta", "data: first", ""]
                release.set()
                assert [line async for line in lines] == ["event: done", "data: last", ""]
            release.clear()
            if edge.peers[0].received:
                break
        first, second = edge.peers[0].received[-1], edge.peers[1].received[-1]
    assert second.body == first.body == b'{"n":1}'
    assert second.header("idempotency-key") == first.header("idempotency-key")


@pytest.mark.parametrize("path", CHAT)
async def test_two_dead_replicas_of_three_cost_a_keyed_turn_of_the_chat_neither_a_failure_nor_its_patience(
    tmp_path: Path, path: str
) -> None:
    async with running_edge(tmp_path, peers=3) as edge:
        for peer in edge.peers[:2]:
            await peer.stop()
        edge.peers[2].handlers[path] = silent_for(7, after_headers=path.endswith("stream"))
        names = [f"request-{number}" for number in range(6)]
        answers = await asyncio.gather(*(send(edge, "POST", name, key=True, path=path) for name in names))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert {answer.text for answer in answers} == {"late"}
    assert deliveries([edge.peers[2]]) == dict.fromkeys(names, 1)


async def test_a_keyed_turn_whose_replica_dies_late_in_a_slow_answer_is_replayed_all_the_same(
    tmp_path: Path,
) -> None:
    path = "/api/v1/chat"

    async def die_late(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(9)  # longer than another replica is tried for other requests
        writer.transport.abort()

    async with running_edge(tmp_path, peers=2) as edge:
        edge.peers[0].handlers[path] = die_late
        answers = await asyncio.gather(
            *(send(edge, "POST", f"request-{number}", key=True, path=path) for number in range(6))
        )
        counted = deliveries(list(edge.peers))
    assert edge.peers[0].received
    assert [(answer.status_code, answer.headers["X-Replica"]) for answer in answers] == [(200, "peer-2")] * 6
    assert set(counted.values()) == {1, 2}


async def test_a_frozen_replica_costs_a_keyed_stream_a_retry_once_three_heartbeats_are_missing(
    tmp_path: Path,
) -> None:
    """With seconds in the place of the 45 that no test has time for."""
    path = "/api/v1/chat/stream"

    def impatient(conf: str) -> str:
        assert conf.count("proxy_read_timeout 45s;") == 1
        return conf.replace("proxy_read_timeout 45s;", "proxy_read_timeout 2s;")

    async with running_edge(tmp_path, peers=2, edit=impatient) as edge:
        edge.peers[0].mode = "freeze"
        async with asyncio.timeout(20):
            number = 0
            while not any(one.path == path for one in edge.peers[0].received):
                answer = await send(edge, "POST", f"request-{number:04}", key=True, path=path)
                number += 1
        counted = deliveries(list(edge.peers))
    assert (answer.status_code, answer.headers["X-Replica"]) == (200, "peer-2")
    assert counted[f"request-{number - 1:04}"] == 2


@pytest.mark.parametrize(
    "path",
    ["/api/v1/auth/login", "/api/v1/api-keys", "/api/v1/realtime/ticket", "/api/v1/chat/runs/run_1/stop"],
)
async def test_a_post_that_takes_no_key_is_not_replayed_even_with_one(tmp_path: Path, path: str) -> None:
    async with running_edge(tmp_path, peers=2) as edge:
        answer = await send_until_a_peer_died_of_it(edge, "POST", key=True, path=path)
        counted = deliveries(list(edge.peers))
    assert answer.status_code == 502
    assert set(counted.values()) == {1}


async def test_a_request_that_kills_what_it_touches_kills_two_replicas_at_the_most(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=3) as edge:
        for peer in edge.peers:
            peer.mode = "die"
        answer = await send(edge, "GET", "poison-pill")
        counted = deliveries(list(edge.peers))
    assert answer.status_code == 502
    assert counted["poison-pill"] == 2


async def test_an_answer_of_5xx_is_not_a_reason_to_ask_another_replica(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=2) as edge:
        for peer in edge.peers:
            peer.answers[PATH] = Answer(503, (("retry-after", "7"),), b'{"code":"draining"}')
        answers = [await send(edge, "GET", f"request-{number}") for number in range(12)]
        counted = deliveries(list(edge.peers))
    assert {(answer.status_code, answer.headers["Retry-After"], answer.text) for answer in answers} == {
        (503, "7", '{"code":"draining"}')
    }
    assert set(counted.values()) == {1}


async def test_a_frozen_replica_costs_reads_and_keyed_posts_a_retry_and_is_then_left_alone(
    tmp_path: Path,
) -> None:
    async with running_edge(tmp_path, peers=3) as edge:
        frozen = edge.peers[0]
        frozen.mode = "freeze"
        kinds = {
            "read": ("GET", False),
            "keyed": ("POST", True),
            "plain": ("POST", False),
            "put": ("PUT", False),
        }
        sent = {f"{kind}-{number:04}": kind for kind in kinds for number in range(12)}
        answers = await asyncio.gather(
            *(send(edge, kinds[kind][0], name, key=kinds[kind][1]) for name, kind in sent.items())
        )
        status = {name: answer.status_code for name, answer in zip(sent, answers, strict=True)}
        stuck = {
            one.header("x-request-id") or "": sent[one.header("x-request-id") or ""]
            for one in frozen.received
        }
        counted = deliveries(list(edge.peers))

        seen_by_frozen = frozen.count()
        later = [await send(edge, "GET", f"later-{number:04}") for number in range(30)]

        assert set(stuck.values()) == set(kinds), "the frozen peer was not given every kind of request"
        assert {status[name] for name in sent if name not in stuck} == {200}
        assert {status[name] for name, kind in stuck.items() if kind in {"read", "keyed"}} == {200}
        assert {counted[name] for name, kind in stuck.items() if kind in {"read", "keyed"}} == {2}
        assert {status[name] for name, kind in stuck.items() if kind in {"plain", "put"}} == {504}
        assert {counted[name] for name, kind in stuck.items() if kind in {"plain", "put"}} == {1}
        assert {answer.status_code for answer in later} == {200}
        assert frozen.count() == seen_by_frozen


async def test_a_replica_that_comes_back_on_its_port_is_used_again(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=2) as edge:
        returning = edge.peers[0]
        await send(edge, "GET", "request-before")
        await returning.stop()
        assert (await send(edge, "GET", "request-between")).status_code == 200
        await returning.start()
        async with asyncio.timeout(20):
            while not any(
                (one.header("x-request-id") or "").startswith("after") for one in returning.received
            ):
                assert (await send(edge, "GET", "after-return")).status_code == 200


async def test_connections_to_replicas_are_kept(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge:
        connections = 0

        async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        await edge.peers[0].stop()
        async with await asyncio.start_server(counting, "127.0.0.1", edge.peers[0].port):
            for number in range(50):
                assert (await send(edge, "GET", f"request-{number}")).status_code == 200
    assert connections <= 4
