"""What `up` was asked for, as the command line hands it to the supervisor."""

import json
from dataclasses import dataclass
from pathlib import Path

from app.cluster.layout import Layout


@dataclass(frozen=True)
class Plan:
    """The size and the place of one cluster."""

    layout: Layout
    replicas: int
    workers: int
    port: int
    """The one people use; Nginx listens there, on loopback."""

    @property
    def url(self) -> str:
        """Where people reach the cluster."""
        return f"http://localhost:{self.port}"

    def to_json(self) -> str:
        """Return the plan as one argument of a command line."""
        return json.dumps(
            {
                "data": str(self.layout.data),
                "replicas": self.replicas,
                "workers": self.workers,
                "port": self.port,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read what `to_json` wrote."""
        document = json.loads(text)
        return cls(
            Layout(Path(document["data"])), document["replicas"], document["workers"], document["port"]
        )
