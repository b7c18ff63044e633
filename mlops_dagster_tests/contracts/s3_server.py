"""An S3 for tests: moto's server, spoken to over real HTTP on loopback.

It is a process of its own because it has to be: deltalake holds the GIL while it lists and reads files, and within the
same process a server could never answer it.
"""

from __future__ import annotations

import contextlib
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_dagster_tests.contracts.servers import answers, eventually, free_port, running


@dataclass(frozen=True)
class S3:
    url: str

    @property
    def storage_options(self) -> Mapping[str, str]:
        return {
            "aws_endpoint_url": self.url,
            "aws_allow_http": "true",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test-secret",
            "aws_region": "us-east-1",
        }

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=10).close()
        return name


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    port = free_port()
    log = folder / "moto.log"
    with running(["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log=log) as process:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return answers(f"http://127.0.0.1:{port}/moto-api/data.json")

        eventually(ready, pause=0.05)
        yield S3(f"http://127.0.0.1:{port}")
