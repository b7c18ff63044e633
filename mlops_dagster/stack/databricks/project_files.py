"""What travels of a project in our wheel, so that a cluster reads the same declarations: its Python, and small data.

It lies there as it lies here, below a package of its own beside ours. Nothing else of the project goes with it: no
`.env`, `.git`, virtual environment or state, and nothing that holds a secret.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Data, Declaration
from mlops_dagster.spec.project import model_names, project_of, shipped_folders
from mlops_dagster.spec.reading import FILE, read_declaration
from mlops_dagster.spec.travelled import TRAVELLED
from mlops_dagster.stack.file_finding import find_files
from mlops_dagster.stack.secrets import is_secret_name, token_in
from mlops_dagster.stack.table_sources import placed
from mlops_dagster.stack.url_files import URL

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment

MOST = 10 * 2**20
"""Bytes of files that travel with one model."""
_CODE = (".py", ".yaml", ".yml")
_JUNK = ("__pycache__", "mlruns", "node_modules", "venv")
_LOOKED_AT = 2**20  # bytes: a larger file holds rows
_MOUNTED = ("/Volumes/", "/Workspace/", "/dbfs/")
_INIT = '''\
"""A project that travelled with mlops_dagster: its declared models, and the Python that they name."""

import sys
from pathlib import Path

DEFS = Path(__file__).parent / "{defs}"
if str(DEFS.parents[{above}]) not in sys.path:
    sys.path.insert(1, str(DEFS.parents[{above}]))  # Dagster takes the first for the script's folder, and ignores it
'''
_PYPROJECT = """\
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{}"
"""


class StaysError(MlopsError):
    """A declared model, or its data, can't be sent to a cluster; the message says why, and the cure."""

    exit_status = 2


def project_files(defs: Path) -> dict[str, bytes]:
    """Return what travels of a project by its path below site-packages, sorted; nothing if it declares no model.

    Nor does anything of the models that come with this package: it has them.

    Of a package all modules, of `defs` all that has to do with its models: what lies beside a declaration, and the
    files in the project that it names as its data. A model with more than :data:`MOST` bytes of them leaves the data
    behind.

    Raises
    ------
    StaysError
        If a file holds a secret.
    """
    models = [] if defs in shipped_folders() else [defs / name for name in model_names(defs)]
    if not models:
        return {}
    root, package = project_of(models[0]), _package_of(defs)
    found = {file for file in _files(package or defs, root) if file.suffix in _CODE}
    for model in models:
        found |= _of_model(model, root)
    above = len(defs.relative_to(package.parent if package else root).parts) - 1
    # Not the project's own, which may say more than a cluster should know, as a package index with its password.
    dg = _PYPROJECT.format(package.name) if package else ""
    return {f"{TRAVELLED}/{file.relative_to(root).as_posix()}": _content(file) for file in sorted(found)} | {
        f"{TRAVELLED}/__init__.py": _INIT.format(defs=defs.relative_to(root).as_posix(), above=above).encode(),
        f"{TRAVELLED}/pyproject.toml": dg.encode(),
    }


def check_travels(declaration: Declaration, deployment: Deployment, steps: Iterable[str], path: str | None) -> None:
    """Refuse a model that steps on a cluster wouldn't find, or whose data they couldn't read.

    Parameters
    ----------
    steps : iterable of str
        Those of the run.
    path : str, optional
        Which files the run reads in place of the deployment's or the declaration's.

    Raises
    ------
    StaysError
        The message names what can't be, and the cure.
    """
    folder = declaration.folder
    if folder.parent.name != "defs" or not (folder / FILE).is_file():
        raise StaysError(
            f"{declaration.name}: only a model that stands in defs/{declaration.name}/{FILE} travels to a cluster. "
            "Write it there, or give a deployment with compute: here."
        )
    if read_declaration(folder / FILE) != declaration:
        raise StaysError(
            f"{declaration.name}: {folder / FILE} says something else than what was loaded, and it is the file that "
            "travels to a cluster. Reload the code location; if the model is changed in Python, change the file."
        )
    travelling = project_files(folder.parent)
    path = deployment.data_parameters(declaration, {"path": path}).get("path")
    said = declaration.predictions
    for step, data, given in (
        (names.DATA, declaration.data, path),
        (names.PREDICTIONS, said.data if said else None, None),
    ):
        if step in steps and data is not None:
            _check_data(declaration, data, given, deployment, travelling)


def _check_data(
    declaration: Declaration, data: Data, path: str | None, deployment: Deployment, travelling: dict[str, bytes]
) -> None:
    if data.asset is not None:
        raise StaysError(
            f"data.asset={data.asset!r}: only the Dagster that has made it can read it, and the step runs on "
            "Databricks. Keep it on a volume or behind a URL and give data.files, or give a deployment with compute: "
            "here."
        )
    settings = deployment.databricks
    if data.sql is not None and settings is not None and settings.cluster.existing is None:
        known = {one.name for one in settings.secrets} | set(settings.environment)
        known |= set(settings.cluster.new.spark_env_vars if settings.cluster.new else ())
        if data.sql.url not in known:
            raise StaysError(
                f"data.sql.url={data.sql.url!r}: the cluster hasn't this environment variable. Let a secret of the "
                f"workspace be it: databricks.secrets: [{{name: {data.sql.url}, scope: ..., key: ...}}]."
            )
    if data.files is None:
        return
    said = path or data.files.path
    if (URL.match(said) and not said.startswith("file:")) or said.startswith(_MOUNTED):
        return
    root, found = project_of(declaration.folder), _named(declaration, said)
    elsewhere = Path(said).expanduser().is_absolute() or URL.match(said)
    if not found and not elsewhere:
        find_files(placed(declaration, said), deployment.limits)
    stays = next((one for one in found if _name(one, root) not in travelling), None)
    if stays is not None or elsewhere:
        raise StaysError(
            f"data.files.path={said!r}: {stays or said} stays on this machine, and the step runs on Databricks. With a "
            f"model travel what lies beside its declaration, and files of its project, named by a relative path, "
            f"{MOST // 2**20} MiB in all. Put larger ones on a volume or behind a URL: /Volumes/..., s3://..."
        )


def _package_of(defs: Path) -> Path | None:
    """Return the package that `defs` is in, the outermost."""
    inside = [one for one in defs.parents if (one / "__init__.py").is_file()]
    return inside[-1] if inside and inside[0] == defs.parent else None


def _of_model(folder: Path, root: Path) -> set[Path]:
    """Return what lies beside a declaration, and what it names; of too much only the code."""
    found = {
        one for one in _files(folder, root) if one.suffix in _CODE or not is_secret_name(one.name.replace(".", " "))
    }
    with suppress(ParameterError):  # of another model than the one that is meant; its own run says so
        declaration = read_declaration(folder / FILE)
        said = declaration.predictions
        for data in (declaration.data, said.data if said else None):
            if data is not None and data.files is not None and not Path(data.files.path).expanduser().is_absolute():
                found |= {one for one in _named(declaration, data.files.path) if _is_in(one, root)}
    if sum(one.stat().st_size for one in found) > MOST:
        return {one for one in found if one.suffix in _CODE}
    return found


def _named(declaration: Declaration, said: str) -> list[Path]:
    """Return the files here that a path of a declaration means, of all partitions."""
    if URL.match(said):
        return []
    partition = declaration.partitions.name if declaration.partitions else None
    pattern = placed(declaration, said.replace(f"{{{partition}}}", "*"))
    there = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)  # noqa: PTH207 absolute
    found = [Path(one) for one in there]
    return [one for one in found if one.is_file()] + [
        file for one in found if one.is_dir() for file in one.rglob("*") if file.is_file()
    ]


def _files(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the files below a folder that may travel; links that leave the project don't."""
    for one in sorted(folder.iterdir()):
        if one.name.startswith(".") or one.name in _JUNK or not _is_in(one, root):
            continue
        if one.is_dir():
            yield from _files(one, root)
        elif one.is_file():
            yield one


def _is_in(file: Path, root: Path) -> bool:
    return file.resolve().is_relative_to(root.resolve())


def _name(file: Path, root: Path) -> str:
    return f"{TRAVELLED}/{file.relative_to(root).as_posix()}" if file.is_relative_to(root) else ""


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if len(content) <= _LOOKED_AT and (kind := token_in(content.decode(errors="ignore"))):
        raise StaysError(
            f"{file} holds {kind}, and secrets aren't sent to a cluster. Take it out: name a secret of the workspace "
            "in databricks.secrets, and read its environment variable."
        )
    return content
