"""What `./cargoflow` promises about one cluster's life, with real processes."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pymongo
import pytest
import redis

from tests.cluster.harness import Cluster, free_port, wait_until

MongoClient = pymongo.MongoClient[dict[str, object]]


def left_of(*data: Path) -> list[psutil.Process]:
    """Every running process that works in, or was told of, one of these data folders."""
    found = []
    for process in psutil.process_iter():
        try:
            told = f"{process.cwd()}\0" + "\0".join([*process.cmdline(), *process.environ().values()])
            alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
        except psutil.Error:
            continue
        if alive and any(str(folder) in told for folder in data):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two replicas that the tests of this module share;

    each leaves it with two replicas, all ready.
    """
    with Cluster(tmp_path_factory.mktemp("running") / "data", replicas=2) as cluster:
        yield cluster


def test_status_lists_every_process_with_a_living_pid_and_where_it_listens(running: Cluster) -> None:
    status = running.status()
    assert status["url"] == running.url
    assert [(replica["name"], replica["ready"]) for replica in status["replicas"]] == [
        ("replica-1", True),
        ("replica-2", True),
    ]
    assert [worker["name"] for worker in status["workers"]] == ["worker-1"]
    assert set(status) == {"url", "nginx", "replicas", "workers", "stores"}
    pids = running.pids()
    assert None not in pids.values()
    assert len(set(pids.values())) == 7
    assert all(psutil.pid_exists(pid) for pid in pids.values() if pid)
    with MongoClient(status["stores"]["mongo"]["uri"], serverSelectionTimeoutMS=5000) as mongo:
        assert mongo.admin.command("ping")["ok"] == 1
    with redis.Redis.from_url(status["stores"]["redis"]["url"]) as store:
        assert store.config_get("appendonly") == {"appendonly": "yes"}
        assert store.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_a_second_up_changes_nothing_and_says_where_the_first_one_is(running: Cluster) -> None:
    before = running.pids()
    for extra in ([], ["--detach"]):
        second = running.cli("up", "--replicas", "4", "--port", str(free_port()), *extra)
        assert "already running" in second.stdout
        assert running.url in second.stdout
    assert running.pids() == before


def test_a_killed_replica_comes_back_on_its_port_and_it_is_said(running: Cluster) -> None:
    url = running.replica_url("replica-1")
    killed = running.kill("replica-1")
    running.wait_for("replica-1", not_pid=killed)
    assert running.replica_url("replica-1") == url
    assert "replica-1: was ended by SIGKILL" in running.log("supervisor")


def test_a_killed_nginx_comes_back_although_its_workers_outlive_it(running: Cluster) -> None:
    workers = psutil.Process(running.pid("nginx")).children()
    assert workers
    killed = running.kill("nginx")
    running.wait_for("nginx", not_pid=killed)
    running.wait_until_ready()
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def test_a_killed_worker_comes_back(running: Cluster) -> None:
    running.wait_for("worker-1", not_pid=running.kill("worker-1"))


def test_killed_stores_come_back_with_everything_they_had_acknowledged(running: Cluster) -> None:
    stores = running.status()["stores"]
    with MongoClient(stores["mongo"]["uri"], serverSelectionTimeoutMS=20_000) as mongo:
        for number in range(200):
            mongo["launcher"]["kept"].insert_one({"_id": number})
        running.wait_for("mongo", not_pid=running.kill("mongo"))
        wait_until(lambda: _answers(mongo))
        assert mongo["launcher"]["kept"].count_documents({}) == 200
    with redis.Redis.from_url(stores["redis"]["url"]) as store:
        store.set("launcher:kept", "yes")
        assert store.execute_command("WAITAOF", 1, 0, 5000)[0] == 1
        running.wait_for("redis", not_pid=running.kill("redis"))
    assert running.status()["stores"]["redis"]["url"] == stores["redis"]["url"]
    with redis.Redis.from_url(stores["redis"]["url"], socket_timeout=10) as store:
        assert store.get("launcher:kept") == b"yes"
    running.wait_until_ready()


def _answers(mongo: MongoClient) -> bool:
    try:
        mongo.admin.command("ping")
    except pymongo.errors.PyMongoError:
        return False
    return True


def test_logs_shows_the_end_of_one_log_and_names_those_there_are(running: Cluster) -> None:
    shown = running.cli("logs", "supervisor", "-n", "1000").stdout
    assert "cluster: ready after" in shown
    unknown = running.cli("logs", "replica-77", check=False)
    assert unknown.returncode == 1
    assert "replica-1" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


def test_logs_with_follow_shows_what_is_written_from_now_on(running: Cluster) -> None:
    argv = running.argv("logs", "supervisor", "-f", "-n", "0")
    with subprocess.Popen(argv, env=running.environment, stdout=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout
        try:
            for _ in range(2):  # the first may come before the viewer listens
                running.wait_for("worker-1", not_pid=running.kill("worker-1"))
            assert any("worker-1: was ended by SIGKILL" in line for line in viewer.stdout)
        finally:
            viewer.terminate()


def test_only_their_owner_may_use_the_control_socket_and_the_secrets(running: Cluster) -> None:
    assert (running.data / "run" / "control.sock").stat().st_mode & 0o777 == 0o600
    secrets = list((running.data / "secrets").iterdir())
    assert secrets
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}


def test_another_cluster_on_the_same_stores_leaves_them_alone_and_shows_no_password(
    running: Cluster, tmp_path: Path
) -> None:
    stores = running.status()["stores"]
    before = running.pids()
    url = stores["redis"]["url"].replace("redis://", "redis://:hunter2@")
    with redis.Redis.from_url(stores["redis"]["url"]) as store:
        store.config_set("requirepass", "hunter2")
    try:
        guest = Cluster(
            tmp_path / "guest", replicas=1, env={"MONGODB_URI": stores["mongo"]["uri"], "REDIS_URL": url}
        )
        with guest:
            assert guest.status()["stores"] == {
                "mongo": {"pid": None, "uri": stores["mongo"]["uri"]},
                "redis": {"pid": None, "url": url},
            }
            shown = guest.cli("status").stdout
            assert "hunter2" not in shown
            assert "redis://:***@" in shown
            assert not any("hunter2" in log.read_text() for log in (guest.data / "logs").iterdir())
    finally:
        with redis.Redis.from_url(url) as store:
            store.config_set("requirepass", "")
    assert running.pids() == before


def test_a_store_that_does_not_answer_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", env={"REDIS_URL": f"redis://:hunter2@127.0.0.1:{free_port()}/0"})
    failed = cluster.cli("up", *cluster.up_arguments(), "--detach", check=False)
    assert failed.returncode == 1
    assert "REDIS_URL" in failed.stderr
    assert "hunter2" not in failed.stderr
    assert left_of(cluster.data) == []


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_port_in_use_is_one_clear_line_and_leaves_nothing_running(
    tmp_path: Path, detach: list[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cluster = Cluster(tmp_path / "data", port=taken.getsockname()[1])
        failed = cluster.cli("up", *cluster.up_arguments(), *detach, check=False)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert f"port {cluster.port} is in use" in failed.stderr
    assert left_of(cluster.data) == []


def test_a_replica_that_dies_at_start_up_fails_up_with_its_last_words_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path / "data", env={"APP_ENV": "production", "JWT_SECRET": "short"})
    failed = cluster.cli("up", *cluster.up_arguments(), "--detach", check=False)
    assert failed.returncode == 1
    assert "before it was ready" in failed.stderr.splitlines()[0]
    assert "JWT_SECRET" in failed.stderr
    assert left_of(cluster.data) == []
    assert cluster.cli("down").returncode == 0


def test_what_was_stored_is_there_after_down_and_up(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", replicas=1)
    with cluster:
        with MongoClient(cluster.status()["stores"]["mongo"]["uri"]) as mongo:
            mongo["launcher"]["kept"].insert_one({"_id": "kept"})
        with redis.Redis.from_url(cluster.status()["stores"]["redis"]["url"]) as store:
            store.set("launcher:kept", "yes")
        secret = (cluster.data / "secrets" / "jwt").read_text()
    assert left_of(cluster.data) == []
    with cluster:
        with MongoClient(cluster.status()["stores"]["mongo"]["uri"]) as mongo:
            assert mongo["launcher"]["kept"].find_one() == {"_id": "kept"}
        with redis.Redis.from_url(cluster.status()["stores"]["redis"]["url"]) as store:
            assert store.get("launcher:kept") == b"yes"
        assert (cluster.data / "secrets" / "jwt").read_text() == secret


def test_of_two_first_ups_at_once_one_starts_the_cluster_and_both_succeed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", replicas=1)
    try:
        argv = cluster.argv("up", *cluster.up_arguments(), "--detach")
        both = [
            subprocess.Popen(argv, env=cluster.environment, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=120)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert sum("already running" in text for text in said) == 1
        assert all(cluster.url in text for text in said)
        assert len([process for process in left_of(cluster.data) if "app.cluster" in process.cmdline()]) == 1
    finally:
        cluster.down()


def test_the_foreground_cluster_drains_at_ctrl_c_and_leaves_nothing_running(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", replicas=1)
    output = tmp_path / "output"
    with output.open("w") as out:
        process = subprocess.Popen(
            cluster.argv("up", *cluster.up_arguments()), env=cluster.environment, stdout=out
        )
    try:
        wait_until(lambda: "Ctrl-C" in output.read_text())
        killed = cluster.kill("replica-1")
        cluster.wait_for("replica-1", not_pid=killed)
        assert "was ended by SIGKILL" in output.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert left_of(cluster.data) == []
    finally:
        cluster.down()
        process.wait(60)


def test_the_foreground_cluster_outlives_whoever_read_its_output(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", replicas=1)
    argv = cluster.argv("up", *cluster.up_arguments())
    with subprocess.Popen(argv, env=cluster.environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            process.stdout.close()
            cluster.wait_until_ready()
            cluster.wait_for("worker-1", not_pid=cluster.kill("worker-1"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            cluster.down()
    assert left_of(cluster.data) == []


@pytest.mark.parametrize("command", ["down", "up"])
def test_what_a_killed_supervisor_left_behind_is_ended_by_the_next(tmp_path: Path, command: str) -> None:
    cluster = Cluster(tmp_path / "data", replicas=2)
    with cluster:
        frozen = cluster.kill("replica-2", signal.SIGSTOP)  # one that can't follow its supervisor by itself
        before = left_of(cluster.data)
        cluster.kill("supervisor")
        assert psutil.pid_exists(frozen)
        cluster.cli(command, *(["--detach", *cluster.up_arguments()] if command == "up" else []))
        assert not [
            process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
        if command == "up":
            cluster.wait_until_ready()
    assert left_of(cluster.data) == []


def test_down_ends_a_cluster_whose_supervisor_is_frozen(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", replicas=1)
    with cluster:
        cluster.kill("supervisor", signal.SIGSTOP)
        cluster.cli("down")
        assert left_of(cluster.data) == []


def test_down_does_not_touch_a_stranger_who_has_got_a_recorded_pid(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", replicas=1)
    with cluster, subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        journal = cluster.data / "run" / "cluster.json"
        recorded = cluster.pid("replica-1")
        before = left_of(cluster.data)
        cluster.kill("supervisor")
        psutil.wait_procs(before, timeout=30)
        journal.write_text(journal.read_text().replace(f'"pid": {recorded},', f'"pid": {stranger.pid},'))
        cluster.cli("down")
        assert stranger.poll() is None
        stranger.kill()


def test_two_clusters_side_by_side_do_not_disturb_each_other(running: Cluster, tmp_path: Path) -> None:
    before = running.pids()
    with Cluster(tmp_path / "other", replicas=1) as other:
        assert not set(filter(None, other.pids().values())) & set(filter(None, before.values()))
        other.cli("restart")
    assert left_of(other.data) == []
    assert running.pids() == before
    assert running.get_status("/ready") == 200


def test_a_data_folder_with_a_very_long_path_works(tmp_path: Path) -> None:
    data = tmp_path / ("a folder with a long name " * 4) / ("and another one " * 6).strip()
    with Cluster(data, replicas=1, workers=0) as cluster:
        cluster.cli("scale", "2")
        assert [replica["ready"] for replica in cluster.status()["replicas"]] == [True, True]


def test_where_nothing_runs_status_is_empty_and_the_other_commands_say_so(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data")
    assert cluster.status() == {
        "url": None,
        "nginx": {"pid": None},
        "replicas": [],
        "workers": [],
        "stores": {"mongo": {"pid": None, "uri": None}, "redis": {"pid": None, "url": None}},
    }
    assert "Nothing was running" in cluster.cli("down").stdout
    for command in (["scale", "2"], ["restart"]):
        refused = cluster.cli(*command, check=False)
        assert refused.returncode == 1
        assert "nothing runs here" in refused.stderr
    assert not cluster.data.exists()


def test_status_live_shows_the_heartbeat_of_every_replica_and_worker(running: Cluster) -> None:
    document = json.loads(running.cli("status", "--live", "--json").stdout)
    listed = {row["name"]: row["pid"] for row in document["replicas"] + document["workers"]}
    assert {row["name"]: row["pid"] for row in document["live"]["processes"]} == listed
    for process in document["live"]["processes"]:
        assert process["pools"]["mongo"]["open"] > 0
    shown = running.cli("status", "--live").stdout
    assert all(f"\n{name} " in shown for name in listed)
    assert "LOCKS" in shown


def test_a_warm_status_is_quick(running: Cluster) -> None:
    began_s = time.monotonic()
    running.status()
    assert time.monotonic() - began_s < 5  # about 0.3 s; a machine under load must not fail it
