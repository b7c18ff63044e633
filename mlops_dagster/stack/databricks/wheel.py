"""The wheel of this package and of a project's models, made of what is here: no network, no build tools.

The version names the content (``0.1.0+0a1b2c3d4e5f``): two different codes never have the same name, and the same code
has the same name and the same bytes wherever it is built.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_dagster import __version__
from mlops_dagster.errors import MlopsError
from mlops_dagster.spec.travelled import TRAVELLED, travelled

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment

NAME = "mlops_dagster"
PACKAGE = Path(__file__).parents[2]
ENTRY_POINTS: Mapping[str, str] = {"mlops": "mlops_dagster.__main__:main", "mlops-task": "mlops_dagster.task:main"}
"""The commands that the wheel installs. Not from the installed metadata, which is as old as the last `pip install`."""

# As setup.cfg's package_data.
_DATA = ("py.typed", "modeling/*.yaml", *(f"examples/*/defs/*/*.{kind}" for kind in ("csv", "py", "yaml")))
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


class WheelError(MlopsError):
    """The package can't be made into a wheel; the message says why."""


def package_files(package: Path = PACKAGE) -> dict[str, bytes]:
    """Return the package's own files by their path below site-packages, sorted.

    Modules of real packages, what :data:`_DATA` says: whatever else lies there (a ``.env``, a ``.git``, a virtual
    environment, tests, notebooks) isn't part of it.
    """
    found = {path for path in _modules(package) if path.is_file()}
    found |= {path for pattern in _DATA for path in package.glob(pattern) if path.is_file()}
    return {f"{NAME}/{path.relative_to(package).as_posix()}": path.read_bytes() for path in sorted(found)}


def _modules(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix == ".py" and not path.name.startswith((".", "test_", "conftest")):
            yield path
        elif path.name.isidentifier() and path.name != "tests" and (path / "__init__.py").is_file():
            yield from _modules(path)


def code_version(package: Path = PACKAGE, defs: Path | None = None) -> str:
    """Return the version that names this code, and the declared models in `defs`. Not given: those of the project.

    Raises
    ------
    WheelError
        If the files aren't there, for example because the package was imported from a zip.
    """
    if not package.is_dir():
        raise WheelError(f"{package} isn't a folder: install mlops_dagster with pip.")
    return _version_of(package_files(package) | _of_project(defs))


def _of_project(defs: Path | None) -> dict[str, bytes]:
    """Return what travels with the package, or has travelled with it."""
    if (there := travelled()) is not None:
        site = Path(str(there.__file__)).parents[1]
        files = (one for one in (site / TRAVELLED).rglob("*") if one.is_file() and "__pycache__" not in one.parts)
        found = {one.relative_to(site).as_posix(): one.read_bytes() for one in files}
    else:
        try:
            from mlops_dagster.spec.project import defs_folder
            from mlops_dagster.stack.databricks.project_files import project_files
        except ModuleNotFoundError:  # on a cluster without pydantic, which its versions are about to say
            return {}
        found = project_files(defs or defs_folder())
    # Python reads it before anything else, so that a code location of the project's own is found, too.
    return {**found, f"{TRAVELLED}.pth": f"import {TRAVELLED}\n".encode()} if found else {}


def _version_of(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return f"{__version__.split('+')[0]}+{digest.hexdigest()[:12]}"


def build_wheel(folder: Path, package: Path = PACKAGE, defs: Path | None = None) -> Path:
    """Write the wheel into a folder and return its path.

    What it holds is what :func:`code_version` names. It names no requirements: what the cluster is to install
    is said in one place, by :func:`requirements`.
    """
    files = dict(sorted((package_files(package) | _of_project(defs)).items()))
    made = _version_of(files)
    info = f"{NAME}-{made}.dist-info"
    commands = "".join(f"{name} = {target}\n" for name, target in ENTRY_POINTS.items())
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {made}\nRequires-Python: >=3.10\n".encode()
    )
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: mlops_dagster\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{commands}".encode()
    files[f"{info}/top_level.txt"] = f"{NAME}\n".encode()
    record = f"{info}/RECORD"
    files[record] = "".join([*(_recorded(name, content) for name, content in files.items()), f"{record},,\n"]).encode()

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}-{made}-py3-none-any.whl"
    unfinished = path.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            wheel.writestr(entry, content)
    return unfinished.replace(path)


def _recorded(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def requirements(*more: str) -> list[str]:
    """Return what the steps require and `more`, each pinned to the version that is installed here.

    That is the extra `local`. Spark isn't among them: the cluster has its own.

    Raises
    ------
    WheelError
        If one of them isn't installed here.
    """
    from packaging.requirements import Requirement

    known = map(Requirement, requires(NAME) or [])
    of_steps = [one for one in known if one.marker is None or one.marker.evaluate({"extra": "local"})]
    pinned: dict[str, None] = {}
    for one in [*sorted(of_steps, key=lambda one: one.name), *map(Requirement, more)]:
        extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
        try:
            pinned[f"{one.name}{extras}=={version(one.name)}"] = None
        except PackageNotFoundError:
            raise WheelError(
                f"{one.name} isn't installed here, so the cluster can't be told which version to install: "
                f"pip install {one.name}."
            ) from None
    return list(pinned)


def requirements_of(deployment: Deployment) -> list[str]:
    """Return what a cluster has to install to run this deployment's steps, without the wheel itself.

    What the steps require, unless the deployment says that they are there; what its way of running steps needs;
    and `databricks.libraries`.
    """
    more = {"databricks_pipes": ["dagster-pipes"], "databricks_step": ["dagster", "dagster-databricks"]}.get(
        deployment.compute, []
    )
    if deployment.compute == "databricks_step" and deployment.tracking.client == "dagster-mlflow":
        more.append("dagster-mlflow")
    settings = deployment.databricks
    if settings is None:
        return requirements(*more)
    return [*(requirements(*more) if settings.install_requirements else []), *settings.libraries]


if __name__ == "__main__":  # a bundle has it built so, and takes whatever wheel is there
    for old in Path(sys.argv[1]).glob(f"{NAME}-*.whl"):
        old.unlink()
    print(build_wheel(Path(sys.argv[1])))
