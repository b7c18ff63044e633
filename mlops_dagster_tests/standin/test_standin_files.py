"""The workspace's files through the real SDK, dagster-databricks' own client, and plain HTTP."""

from __future__ import annotations

import base64
import io
import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk.errors import DatabricksError, NotFound, PermissionDenied, ResourceDoesNotExist

from mlops_dagster_tests.contracts.workspace import Workspace, workspace

pytestmark = pytest.mark.xdist_group("standin_files")
SIZES = [0, 1, 524_288, 1_048_576, 3_000_001]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_goes_to_dbfs_and_back(ws: Workspace, size: int) -> None:
    content = os.urandom(size)
    client = ws.client()
    with client.dbfs.open(f"/there/{size}", write=True, overwrite=True) as file:
        file.write(content)
    assert (ws.dbfs / "there" / str(size)).read_bytes() == content
    with client.dbfs.open(f"dbfs:/there/{size}", read=True) as file:
        parts = []
        while part := file.read(1_000_000):
            parts.append(part)
    assert b"".join(parts) == content
    assert client.dbfs.get_status(f"/there/{size}").file_size == size


@pytest.mark.parametrize("size", SIZES)
def test_dagster_databricks_own_client_moves_files(ws: Workspace, size: int) -> None:
    from dagster_databricks.databricks import DatabricksClient

    client = DatabricksClient(host=ws.url, token=ws.token)
    content = os.urandom(size)
    client.put_file(io.BytesIO(content), f"dbfs:///dagster_staging/{size}", overwrite=True)
    assert client.read_file(f"dbfs:///dagster_staging/{size}") == content
    with pytest.raises(ResourceDoesNotExist, match="No file or directory exists on path"):
        client.read_file("dbfs:///dagster_staging/none")


@pytest.mark.parametrize("size", SIZES)
def test_a_file_goes_to_a_volume_and_back(ws: Workspace, size: int) -> None:
    content = os.urandom(size)
    client, path = ws.client(), f"/Volumes/main/default/files/with space/{size}.bin"
    client.files.upload(path, io.BytesIO(content))
    assert (ws.root / path.lstrip("/")).read_bytes() == content
    assert client.files.download(path).contents.read() == content
    facts = client.files.get_metadata(path)
    assert (facts.content_length, bool(facts.last_modified)) == (size, True)
    with pytest.raises(DatabricksError, match="already exists"):
        client.files.upload(path, io.BytesIO(b"other"))
    client.files.upload(path, io.BytesIO(b"other"), overwrite=True)
    assert client.files.download(path).contents.read() == b"other"
    client.files.delete(path)
    with pytest.raises(NotFound):
        client.files.download(path)


def test_directories_of_a_volume(ws: Workspace) -> None:
    client, top = ws.client(), "/Volumes/main/default/folders"
    client.files.create_directory(f"{top}/a/b")
    client.files.upload(f"{top}/a/c.txt", io.BytesIO(b"c"))
    listed = [
        (each.name, each.is_directory, each.file_size) for each in client.files.list_directory_contents(f"{top}/a")
    ]
    assert listed == [("b", True, 0), ("c.txt", False, 1)]
    client.files.get_directory_metadata(f"{top}/a")
    with pytest.raises(DatabricksError, match="not empty"):
        client.files.delete_directory(f"{top}/a")
    client.files.delete_directory(f"{top}/a/b")
    with pytest.raises(NotFound):
        client.files.get_directory_metadata(f"{top}/a/b")
    for number in range(5):
        client.files.upload(f"{top}/many/{number}", io.BytesIO(b""))
    assert [each.name for each in client.files.list_directory_contents(f"{top}/many", page_size=2)] == list("01234")


def test_folders_of_dbfs(ws: Workspace) -> None:
    client = ws.client()
    client.dbfs.mkdirs("/folder/inner")
    client.dbfs.put("/folder/file", contents=base64.b64encode(b"four").decode())
    listed = [(each.path, each.is_dir, each.file_size) for each in client.dbfs.list("dbfs:/folder")]
    assert listed == [("/folder/file", False, 4), ("/folder/inner", True, 0)]
    with pytest.raises(DatabricksError, match="already exists"):
        client.dbfs.put("/folder/file", contents="")
    with pytest.raises(DatabricksError, match="non-empty"):
        client.api_client.do("POST", "/api/2.0/dbfs/delete", body={"path": "/folder"})
    client.dbfs.delete("/folder", recursive=True)
    with pytest.raises(ResourceDoesNotExist):
        client.dbfs.get_status("/folder")


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("put", {"path": "/big", "contents": base64.b64encode(bytes(1_048_577)).decode()}, "MAX_BLOCK_SIZE_EXCEEDED"),
        ("put", {"path": "relative", "contents": ""}, "INVALID_PARAMETER_VALUE"),
        ("put", {"path": "/a/../../outside", "contents": ""}, "INVALID_PARAMETER_VALUE"),
        ("put", {"path": "/not64", "contents": "***"}, "INVALID_PARAMETER_VALUE"),
        ("add-block", {"handle": 12345, "data": ""}, "RESOURCE_DOES_NOT_EXIST"),
        ("close", {"handle": 12345}, "RESOURCE_DOES_NOT_EXIST"),
    ],
)
def test_dbfs_refuses(ws: Workspace, operation: str, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(urllib.error.HTTPError):
        ws.call("POST", f"/api/2.0/dbfs/{operation}", arguments)
    assert ws.requests(f"/dbfs/{operation}")[-1]["error_code"] == code


def test_reading_dbfs_has_a_default_and_a_limit(ws: Workspace) -> None:
    content = os.urandom(600_000)
    (ws.dbfs / "long").write_bytes(content)
    assert ws.call("GET", "/api/2.0/dbfs/read?path=/long")["bytes_read"] == 524_288
    rest = ws.call("GET", "/api/2.0/dbfs/read?path=/long&offset=524288&length=1048576")
    assert base64.b64decode(rest["data"]) == content[524_288:]
    assert ws.call("GET", "/api/2.0/dbfs/read?path=/long&offset=700000") == {"bytes_read": 0, "data": ""}
    with pytest.raises(urllib.error.HTTPError):
        ws.call("GET", "/api/2.0/dbfs/read?path=/long&length=1048577")


def test_a_workspace_without_dbfs(tmp_path: Path) -> None:
    with workspace(tmp_path, no_dbfs=True) as without:
        with pytest.raises(PermissionDenied, match="Public DBFS root is disabled"):
            without.client().dbfs.put("/tmp/x", contents="")
        without.client().files.upload("/Volumes/a/b/c", io.BytesIO(b"volumes do"))
