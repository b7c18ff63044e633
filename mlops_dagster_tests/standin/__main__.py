"""Start a stand-in workspace: `python -m mlops_dagster_tests.standin --root DIR`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from mlops_dagster_tests.standin import processes
from mlops_dagster_tests.standin.pages import DISCLAIMER
from mlops_dagster_tests.standin.server import Server, Workspace
from mlops_dagster_tests.standin.settings import Settings


def settings_from(arguments: Sequence[str] | None) -> Settings:
    default = Settings(Path())
    parser = argparse.ArgumentParser("python -m mlops_dagster_tests.standin", description=DISCLAIMER)
    parser.add_argument("--root", type=Path, required=True, help="folder for all of the workspace's state")
    parser.add_argument("--port", type=int, default=default.port)
    drawn = "not given: drawn anew at each start"
    parser.add_argument("--token", help=f"the access token that it accepts; {drawn}")
    parser.add_argument("--client-id", default=default.client_id, help="OAuth for machines")
    parser.add_argument("--client-secret", help=drawn)
    parser.add_argument("--engine", choices=["classic", "connect", "none"], default=default.engine)
    parser.add_argument(
        "--map", choices=["auto", "namespace", "patch"], default="auto", help="how a task sees /Volumes"
    )
    parser.add_argument("--isolated", action="store_true", help="tasks see only uploaded code, and a /tmp of their own")
    parser.add_argument("--hide", type=Path, action="append", default=[], help="a folder that tasks must not see")
    parser.add_argument("--share", type=Path, action="append", default=[], help="a folder of /tmp that they do see")
    parser.add_argument("--no-dbfs", action="store_true", help="as new workspaces are: DBFS root disabled")
    parser.add_argument("--cluster", action="append", default=[], help="id of an existing cluster")
    parser.add_argument("--runtime-version", default=default.runtime_version)
    parser.add_argument("--python", default=default.python, help="the cluster's Python")
    parser.add_argument("--pending-seconds", type=float, default=default.pending_seconds)
    parser.add_argument("--terminating-seconds", type=float, default=default.terminating_seconds)
    parser.add_argument("--kill-seconds", type=float, default=default.kill_seconds, help="from TERM to KILL")
    given = parser.parse_args(arguments)
    mapping = given.map
    if mapping == "auto":
        mapping = "namespace" if processes.unshare() else "patch"
    root: Path = given.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    return Settings(
        root=root,
        port=given.port,
        token=given.token or default.token,
        client_id=given.client_id,
        client_secret=given.client_secret or default.client_secret,
        engine=given.engine,
        mapping=mapping,
        isolated=given.isolated,
        hide=tuple(path.resolve() for path in given.hide),
        share=tuple(path.resolve() for path in given.share),
        dbfs=not given.no_dbfs,
        clusters=tuple(given.cluster) or default.clusters,
        runtime_version=given.runtime_version,
        python=given.python,
        pending_seconds=given.pending_seconds,
        terminating_seconds=given.terminating_seconds,
        kill_seconds=given.kill_seconds,
    )


def banner(settings: Settings) -> str:
    return "\n".join(
        [
            f"Stand-in workspace at {settings.url}",
            f"  DATABRICKS_HOST={settings.url} DATABRICKS_TOKEN={settings.token}",
            f"  or DATABRICKS_CLIENT_ID={settings.client_id} DATABRICKS_CLIENT_SECRET={settings.client_secret}",
            f"  root {settings.root}",
            f"  engine {settings.engine}, mapping {settings.mapping}, clusters {', '.join(settings.clusters)}"
            f"{', isolated' if settings.isolated else ''}{'' if settings.dbfs else ', no DBFS'}",
            f"  {DISCLAIMER}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    settings = settings_from(arguments)
    workspace = Workspace(settings)
    server = Server(workspace)

    def stop(_: int, __: FrameType | None) -> None:
        # `shutdown` waits for the loop, which this very thread runs.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(banner(settings), flush=True)
    with contextlib.closing(server.socket):
        server.serve_forever(poll_interval=0.1)
    workspace.runs.stop()
    sys.exit(0)


if __name__ == "__main__":
    main()
