"""What the tests of the stand-in share: a workspace without Spark, and a short way to a script's body."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlops_dagster_tests.contracts.workspace import Workspace, workspace
from mlops_dagster_tests.standin.submitting import script_body


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with workspace(tmp_path_factory.mktemp("workspace")) as running:
        yield running
        assert not running.live_processes()


@pytest.fixture
def body(ws: Workspace) -> Callable[..., dict[str, Any]]:
    """Write a script to DBFS, and return the body that runs it."""
    return lambda *arguments, **named: script_body(ws, *arguments, **named)
