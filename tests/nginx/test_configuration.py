"""Rendering, checking and reloading the configuration."""

import asyncio
import os
import re
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from app.cluster import nginx
from tests.nginx.edge import eventually, running_edge
from tests.nginx.peer import Peer


def a_site(folder: Path) -> nginx.NginxSite:
    return nginx.NginxSite(
        port=8080, upstreams=("127.0.0.1:5001",), run_dir=folder / "run", web_root=folder / "web"
    )


def test_a_rendered_site_passes_nginx_own_check(tmp_path: Path) -> None:
    conf = nginx.write(a_site(tmp_path))
    assert [path.name for path in conf.parent.iterdir() if path.is_file()] == ["nginx.conf"]
    nginx.check(conf)
    assert conf == tmp_path / "run" / "nginx.conf"
    assert not nginx._VARIABLE.search(conf.read_text())


def test_a_folder_with_spaces_is_fine(tmp_path: Path) -> None:
    nginx.check(nginx.write(a_site(tmp_path / "My Projects; really {1}")))


@pytest.mark.parametrize("name", ['quo"te', "dollar$sign", "back\\slash", "new\nline"])
def test_a_folder_that_could_break_out_of_the_configuration_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(nginx.NginxConfigError, match="can't stand in"):
        nginx.write(a_site(tmp_path / name))


@pytest.mark.parametrize("upstream", ["127.0.0.1:1; server evil:80", "", "a b", "${USER_LINE}"])
def test_an_upstream_that_could_break_out_of_the_configuration_is_refused(
    tmp_path: Path, upstream: str
) -> None:
    with pytest.raises(nginx.NginxConfigError, match="can't stand in"):
        nginx.write(replace(a_site(tmp_path), upstreams=(upstream,)))


def test_what_nginx_refuses_is_told_with_the_line(tmp_path: Path) -> None:
    conf = nginx.write(replace(a_site(tmp_path), upstreams=("127.0.0.1:99999",)))
    with pytest.raises(
        nginx.NginxConfigError, match=r"invalid port .* line \d+: server 127\.0\.0\.1:99999 max_fails"
    ):
        nginx.check(conf)


def test_the_command_is_absolute_and_stays_in_the_foreground(tmp_path: Path) -> None:
    command = nginx.command(nginx.write(a_site(tmp_path)))
    assert Path(command[0]) == nginx.binary()
    assert nginx.binary().stat().st_mode & stat.S_IXUSR
    assert command[-2:] == ["-g", "daemon off;"]
    assert all(Path(one).is_absolute() for one in command if "/" in one)


async def test_a_reload_moves_traffic_to_the_new_upstreams(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge, Peer("newcomer") as newcomer:
        assert (await edge.client.get("/health")).headers["X-Replica"] == "peer-1"
        nginx.check(nginx.write(replace(edge.site, upstreams=(f"127.0.0.1:{newcomer.port}",))))
        nginx.reload(edge.pid)
        seen = ""
        while seen != "newcomer":
            answer = await edge.client.get("/health")
            assert answer.status_code == 200
            seen = answer.headers["X-Replica"]


async def test_a_kept_connection_survives_a_reload_and_is_told_to_close(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        nginx.reload(edge.pid)
        head = ""
        while "Connection: close" not in head:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200 ")
            assert await reader.readexactly(11) == b'{"ok":true}'
        assert await reader.read() == b""
        writer.close()


async def test_without_upstreams_everything_proxied_is_502_and_a_reload_mends_it(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge:
        nginx.write(replace(edge.site, upstreams=()))
        nginx.reload(edge.pid)
        status = 200
        while status == 200:
            status = (await edge.client.get("/health")).status_code
        assert status == 502
        nginx.write(edge.site)
        nginx.reload(edge.pid)
        while status == 502:
            status = (await edge.client.get("/health")).status_code
        assert status == 200


async def test_a_reload_of_a_broken_configuration_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge:
        conf = nginx.write(replace(edge.site, upstreams=("127.0.0.1:99999",)))
        nginx.reload(edge.pid)
        await eventually(lambda: "invalid port" in edge.raw_log())
        assert (await edge.client.get("/health")).status_code == 200
        with pytest.raises(nginx.NginxConfigError):
            nginx.check(conf)


def test_the_template_names_no_variable_that_the_readme_leaves_out() -> None:
    used = set(nginx._VARIABLE.findall((nginx.NGINX_DIR / "nginx.conf.template").read_text()))
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", (nginx.NGINX_DIR / "README.md").read_text(), re.MULTILINE))
    assert used == told


@pytest.mark.skipif(shutil.which("envsubst") is None, reason="gettext's envsubst is not installed")
def test_envsubst_renders_the_same_file(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    conf = nginx.write(site)
    variables = nginx._variables(site, site.run_dir)
    rendered = subprocess.run(
        ["envsubst", " ".join(f"${{{name}}}" for name in variables)],
        input=(nginx.NGINX_DIR / "nginx.conf.template").read_text(),
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
    assert rendered == conf.read_text()


def test_the_container_starts_on_the_values_of_the_readme(tmp_path: Path) -> None:
    readme = (nginx.NGINX_DIR / "README.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \|[^|]*\| ?`?([^|`]*)`? ?\|$", readme, re.MULTILINE)
    moved = {
        "NGINX_DIR": str(nginx.NGINX_DIR),
        "TEMP_DIR": str(tmp_path / "temp"),
        "PID_FILE": str(tmp_path / "nginx.pid"),
    }
    (tmp_path / "temp").mkdir()
    conf = tmp_path / "nginx.conf"
    template = (nginx.NGINX_DIR / "nginx.conf.template").read_text()
    conf.write_text(nginx._render(template, dict(rows) | moved))
    nginx.check(conf)
