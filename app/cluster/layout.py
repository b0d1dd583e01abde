"""Where one local cluster keeps what it keeps: the paths below its data folder.

    DIR/mongo  DIR/redis      what the stores hold
    DIR/nginx                 the rendered configuration and Nginx's temporary files
    DIR/logs/NAME.log         one log a process, and `supervisor.log`
    DIR/secrets               the cluster's own secrets, 0600
    DIR/run                   the lock, the journal and the control socket of the running supervisor

Two clusters are two data folders; nothing outside the folder is shared but the machine's ports.
"""

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_SOCKET_PATH_MAX_BYTES = 100
"""A unix socket's address holds 108 bytes on Linux and 104 on macOS, with the final NUL."""


@dataclass(frozen=True)
class Layout:
    """The paths of one cluster. Making one touches nothing; `prepare` makes the folders."""

    data: Path
    """Absolute."""

    @classmethod
    def at(cls, data: Path | None) -> "Layout":
        """Return the layout of `data`, or of `.data` in the repository, wherever the caller works."""
        return cls(data.absolute() if data else REPOSITORY / ".data")

    @property
    def mongo(self) -> Path:
        """The storage folder of the MongoDB-compatible engine."""
        return self.data / "mongo"

    @property
    def redis(self) -> Path:
        """The folder of the append-only file."""
        return self.data / "redis"

    @property
    def nginx(self) -> Path:
        """Nginx's run folder."""
        return self.data / "nginx"

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.data / "logs"

    @property
    def run(self) -> Path:
        """What belongs to the running supervisor."""
        return self.data / "run"

    @property
    def lock(self) -> Path:
        """The file whose lock the supervisor holds for as long as it lives."""
        return self.run / "lock"

    @property
    def journal(self) -> Path:
        """The file that says which processes were started."""
        return self.run / "cluster.json"

    @property
    def control_socket(self) -> Path:
        """The control socket: in the temporary folder, by a hashed name, where the usual path is too long."""
        path = self.run / "control.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_MAX_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:20]
        return Path(tempfile.gettempdir()) / f"cargoflow-{os.getuid()}-{digest}.sock"

    def log(self, name: str) -> Path:
        """Return the log of one process."""
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Make the folders, readable by their owner only. Raises OSError where that can't be."""
        for folder in (
            self.data,
            self.mongo,
            self.redis,
            self.nginx,
            self.logs,
            self.run,
            self.data / "secrets",
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def secret(self, name: str) -> str:
        """Return the cluster's own secret of that name, made at the first call and kept (0600)."""
        path = self.data / "secrets" / name
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(48))
            fresh.replace(path)
        return path.read_text().strip()
