from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlops_dagster.stack.store import Store
from mlops_dagster_tests.contracts.s3_server import S3, s3_server
from mlops_dagster_tests.contracts.store_contract import StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path / "a store" / "täbles")  # neither exists, and paths like these are common


class TestVolumeStore(StoreContract):
    """A disk without hard links, as Databricks' /Volumes are: a commit is a rename there."""

    takes_turns = False

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path / "store")

    @pytest.fixture
    def options(self) -> Mapping[str, str]:
        return Store("/Volumes/main/default/mlops").storage_options


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


class TestS3Store(StoreContract):
    @pytest.fixture
    def root(self, s3: S3) -> str:
        return f"s3://{s3.new_bucket()}/team/mlops"

    @pytest.fixture
    def options(self, s3: S3) -> Mapping[str, str]:
        return s3.storage_options
