"""What a stand-in workspace can be told when it starts."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settings:
    """The workspace, its engine, and how like a cluster its tasks' processes are."""

    root: Path
    port: int = 8765
    # Drawn at each start if they aren't given: a run is anybody's code, run as the user who started this.
    token: str = field(default_factory=lambda: f"standin-{secrets.token_hex(16)}", repr=False)
    client_id: str = "standin-client"
    client_secret: str = field(default_factory=lambda: f"standin-{secrets.token_hex(16)}", repr=False)
    # classic: Spark with `sc`; connect: Spark Connect, as on serverless; none: no Spark, for tests of the protocol.
    engine: str = "classic"
    # namespace: /dbfs and /Volumes are real paths in the task; patch: Python's own I/O is redirected.
    mapping: str = "namespace"
    isolated: bool = False
    hide: tuple[Path, ...] = ()
    share: tuple[Path, ...] = ()
    dbfs: bool = True
    clusters: tuple[str, ...] = ("0000-000000-standin",)
    runtime_version: str = "16.4"
    python: str = sys.executable
    pending_seconds: float = 0.3
    terminating_seconds: float = 0.2
    kill_seconds: float = 5.0
    user: str = "standin@example.com"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
