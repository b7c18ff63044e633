"""Tables on a volume, written where it is and read from outside through the workspace's Files API."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from databricks.sdk import WorkspaceClient
from deltalake import DeltaTable

from mlops_dagster.stack.databricks.volumes import VolumeCopies, VolumeError, is_outside
from mlops_dagster.stack.databricks.workspace import WorkspaceError, connect
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import Store, StoreError, TableNotFound, store_of
from mlops_dagster_tests.contracts.workspace import Workspace

pytestmark = pytest.mark.xdist_group("stack_databricks")
ROOT = "/Volumes/main/mlops/tables/store"


@pytest.fixture
def inside(ws: Workspace) -> Store:
    """As a process on Databricks sees it: below the folder that is /Volumes there, committing as there."""
    folder = ws.root / ROOT.strip("/")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return Store(folder, Store(ROOT).storage_options)


@pytest.fixture
def outside(client: WorkspaceClient, tmp_path: Path) -> Store:
    return Store(ROOT, volumes=VolumeCopies(lambda: client, tmp_path / "copies"))


def rows(count: int, start: float = 0) -> pd.DataFrame:
    return pd.DataFrame({"value": [start + number for number in range(count)], "text": "x"})


def downloads(ws: Workspace) -> list[str]:
    return [one["path"] for one in ws.requests("/fs/files/") if one["method"] == "GET"]


def test_only_a_volume_that_isnt_here_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_outside(ROOT)
    assert not is_outside("/data/store")
    assert not is_outside("s3://bucket/Volumes/x")
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert not is_outside(ROOT)


def test_what_was_written_inside_is_read_outside(inside: Store, outside: Store) -> None:
    written = inside.write("prices", "^GSPC", rows(5), metadata={"by": "inside"})
    frame, found = outside.read("prices", "^GSPC")
    pd.testing.assert_frame_equal(frame, rows(5))
    assert found.uri == f"{ROOT}/prices/@GSPC"
    assert (found.version, found.digest, found.rows, found.metadata, found.written_at) == (
        written.version,
        written.digest,
        5,
        {"by": "inside"},
        written.written_at,
    )
    assert outside.current("prices", "^GSPC") == found
    assert outside.symbols("prices") == ["^GSPC"]


def test_changes_and_history(inside: Store, outside: Store) -> None:
    assert outside.history("prices", "GSPC") == []
    assert outside.current("prices", "GSPC") is None
    for number in range(1, 4):
        inside.write("prices", "GSPC", rows(number))
        current = outside.current("prices", "GSPC")
        assert current is not None
        assert current.rows == number
    assert [one.rows for one in outside.history("prices", "GSPC")] == [1, 2, 3]
    assert len(outside.read("prices", "GSPC", version=1)[0]) == 2
    assert len(outside.read("prices", "GSPC")[0]) == 3


def test_many_versions_with_a_checkpoint(inside: Store, outside: Store) -> None:
    for number in range(12):
        inside.write("prices", "GSPC", rows(3, start=number))
    DeltaTable(f"{inside.root}/prices/GSPC").create_checkpoint()
    inside.write("prices", "GSPC", rows(3, start=99))
    assert outside.read("prices", "GSPC")[0]["value"].tolist() == [99, 100, 101]
    assert len(outside.history("prices", "GSPC")) == 13


def test_each_file_is_fetched_once_and_only_if_needed(ws: Workspace, inside: Store, outside: Store) -> None:
    inside.write("prices", "GSPC", rows(5))
    before = len(downloads(ws))
    outside.current("prices", "GSPC")
    assert [path.rsplit("/", 2)[1] for path in downloads(ws)[before:]] == ["_delta_log"]
    outside.read("prices", "GSPC")
    assert downloads(ws)[-1].endswith(".parquet")
    after = len(downloads(ws))
    outside.read("prices", "GSPC")
    outside.history("prices", "GSPC")
    assert len(downloads(ws)) == after


def test_a_table_that_was_made_anew_is_seen_anew(inside: Store, outside: Store) -> None:
    inside.write("prices", "GSPC", rows(5))
    inside.write("prices", "GSPC", rows(6))
    outside.read("prices", "GSPC")
    shutil.rmtree(Path(inside.root) / "prices")
    assert outside.current("prices", "GSPC") is None
    assert outside.symbols("prices") == []
    inside.write("prices", "GSPC", rows(7))
    frame, found = outside.read("prices", "GSPC")
    assert (len(frame), found.version) == (7, 0)
    # Nobody looked meanwhile, and the commit's file has the name that it had before.
    shutil.rmtree(Path(inside.root) / "prices")
    inside.write("prices", "GSPC", rows(8))
    assert len(outside.read("prices", "GSPC")[0]) == 8


def test_a_damaged_file_is_refused(inside: Store, outside: Store) -> None:
    inside.write("prices", "GSPC", rows(5))
    inside.write("other", "GSPC", rows(5, start=1))
    (mine,) = (Path(inside.root) / "prices" / "GSPC").glob("*.parquet")
    (other,) = (Path(inside.root) / "other" / "GSPC").glob("*.parquet")
    mine.write_bytes(other.read_bytes())
    with pytest.raises(StoreError, match="isn't what was written"):
        outside.read("prices", "GSPC")


def test_a_file_that_arrives_cut_is_asked_for_again(ws: Workspace, inside: Store, outside: Store) -> None:
    inside.write("prices", "GSPC", rows(5))
    ws.fault(kind="truncate", path="*.parquet", size=100)
    assert len(outside.read("prices", "GSPC")[0]) == 5
    assert ws.faults()[0]["used"] == 1


def test_a_file_that_is_always_cut_is_refused(ws: Workspace, inside: Store, outside: Store) -> None:
    inside.write("prices", "GSPC", rows(5))
    ws.fault(kind="truncate", path="*.parquet", size=100, times=100)
    with pytest.raises(VolumeError, match=r"100 of \d+ bytes arrived"):
        outside.read("prices", "GSPC")


def test_writing_from_outside_is_refused(outside: Store) -> None:
    with pytest.raises(StoreError, match=r"this machine has no such volume.*databricks_pipes"):
        outside.write("prices", "GSPC", rows(5))


def test_what_isnt_there_is_named(inside: Store, outside: Store) -> None:
    inside.write("prices", "GSPC", rows(1))
    with pytest.raises(TableNotFound, match=r"'IXIC' below /Volumes/.*there is one of: GSPC\."):
        outside.read("prices", "IXIC")
    with pytest.raises(TableNotFound, match="version=9"):
        outside.read("prices", "GSPC", version=9)


def test_a_refusal_says_what_to_grant(ws: Workspace, inside: Store, outside: Store) -> None:
    inside.write("prices", "GSPC", rows(1))
    ws.fault(kind="status", path="*/fs/*", status=403, error_code="PERMISSION_DENIED", message="no", times=9)
    with pytest.raises(StoreError, match="READ VOLUME"):
        outside.current("prices", "GSPC")


@pytest.mark.usefixtures("no_credentials")
def test_a_store_connects_when_it_is_used() -> None:
    store = Store(ROOT, volumes=VolumeCopies(connect))
    assert repr(store) == f"Store({ROOT!r})"
    with pytest.raises(WorkspaceError, match="no workspace is named"):
        store.current("prices", "GSPC")


def test_the_deployments_store(
    ws: Workspace, inside: Store, client: WorkspaceClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLOPS_STORE__ROOT", ROOT)
    inside.write("prices", "GSPC", rows(5))
    store = store_of(load_deployment("local"))
    assert len(store.read("prices", "GSPC")[0]) == 5
    assert list((tmp_path / "home" / "volumes").rglob("*.parquet"))
