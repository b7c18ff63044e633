"""The models that a project declares: where their folders are, and finding one by its name."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from mlops_dagster.errors import refuse
from mlops_dagster.spec import limited_yaml
from mlops_dagster.spec.model import NAME, Declaration
from mlops_dagster.spec.reading import FILE, TYPE, is_of, read_declaration
from mlops_dagster.spec.travelled import travelled


def defs_folder(start: Path | None = None) -> Path:
    """Return the folder of a project's declarations.

    It is ``defs`` of the working directory; if that isn't there, where a ``pyproject.toml`` with ``[tool.dg.project]``
    says, here or in a folder above. On a cluster it is what travelled there.
    """
    if start is None and (there := travelled()) is not None:
        return Path(there.DEFS)
    here = (start or Path.cwd()).absolute()
    if (here / "defs").is_dir():
        return here / "defs"
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        root = _root_module(project) if project.is_file() else None
        # In a checkout of this package models are the reader's, not the package's.
        if root not in (None, "mlops_dagster"):
            places = [folder / "src" / root / "defs", folder / root / "defs"]
            return next((place for place in places if place.is_dir()), places[1])
    return here / "defs"


def project_of(folder: Path) -> Path:
    """Return the project of a declaration's folder: where its ``pyproject.toml`` is, else what holds ``defs``.

    A declaration that isn't below ``defs`` is a project of its own.
    """
    folder = folder.absolute()
    holder = next((one.parent for one in folder.parents if one.name == "defs"), None)
    if holder is None:
        return folder
    # acme/defs, acme/acme/defs or acme/src/acme/defs
    return next((one for one in (holder, *holder.parents[:2]) if (one / "pyproject.toml").is_file()), holder)


def _root_module(project: Path) -> str | None:
    # Python 3.10 has no parser of TOML; the name stands on a line of its own.
    found = re.search(
        r'^\[tool\.dg\.project\][^\[]*?^root_module\s*=\s*"([\w.]+)"', limited_yaml.text_of(project), re.M
    )
    return found[1].replace(".", "/") if found else None


def model_names(defs: Path | None = None, type_: str = TYPE) -> list[str]:
    """Return the names of the models (or of what else a type says) that a project declares, sorted."""
    folder = defs or defs_folder()
    return sorted(file.parent.name for file in folder.glob(f"*/{FILE}") if is_of(file, type_))


def find_model(name: str, defs: Path | None = None) -> Declaration:
    """Read the declaration of a project's model.

    Raises
    ------
    ParameterError
        If there is no such model, or its declaration is wrong.
    """
    folder = defs or defs_folder()
    if NAME.fullmatch(name) and (folder / name / FILE).is_file():
        return read_declaration(folder / name / FILE)
    names = model_names(folder)
    meant = difflib.get_close_matches(name, names, n=1)
    there = (
        f"did you mean {meant[0]}?" if meant else f"there are {', '.join(names)}." if names else "there are none yet."
    )
    cure = f"no such model is declared in {folder}; {there} Make one: mlops new NAME --data FILE --target COLUMN."
    raise refuse("model", name, cure)
