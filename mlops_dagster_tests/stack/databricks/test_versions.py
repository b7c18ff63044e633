"""The cluster's versions are compared before any work."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from mlops_dagster.stack.databricks.versions import VersionSkew, check_versions, versions
from mlops_dagster.stack.databricks.wheel import code_version


def test_the_same_process_is_like_itself() -> None:
    found = versions("dagster")
    assert set(found) == {"Python", "numpy", "scikit-learn", "mlops_dagster", "dagster"}
    assert found["mlops_dagster"] == code_version()
    assert found["dagster"] == version("dagster")
    check_versions(found)


def test_every_difference_is_named() -> None:
    there = versions("dagster", "dagster-pipes")
    other = {
        **there,
        "Python": "3.7",
        "scikit-learn": "0.1",
        "numpy": "1.0",
        "mlops_dagster": "0.1.0+0",
        "dagster": "1.0.0",
    }
    with pytest.raises(VersionSkew) as caught:
        check_versions(other)
    said = str(caught.value)
    for name in ("Python", "scikit-learn", "numpy", "mlops_dagster", "dagster"):
        assert f"{name} is {there[name]} there and {other[name]} here" in said
    assert "dagster-pipes" not in said
    assert caught.value.exit_status == 2


def test_numpy_may_differ_within_a_major_version() -> None:
    here = versions()
    check_versions({**here, "numpy": here["numpy"].split(".")[0] + ".0.0"})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(VersionSkew, match=r"no-such-thing is missing there and 1\.0 here"):
        check_versions({**versions(), "no-such-thing": "1.0"})
