"""The models that a project declares, and those that come with this package: where they are, finding one by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from mlops_dagster.errors import refuse
from mlops_dagster.spec import limited_yaml
from mlops_dagster.spec.model import NAME, Declaration
from mlops_dagster.spec.reading import FILE, TYPE, is_of, read_declaration
from mlops_dagster.spec.travelled import travelled

MAKE_ONE = "Make one: mlops new NAME --data FILE --target COLUMN"
_SHIPPED = Path(__file__).parents[1] / "examples"
_ITS_PACKAGE = re.compile(r'^\[tool\.dg\.project\][^\[]*?^root_module\s*=\s*"([\w.]+)"', re.M)


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
        if (root := _root_module(folder)) is not None:
            places = [folder / "src" / root / "defs", folder / root / "defs"]
            return next((place for place in places if place.is_dir()), places[1])
    return here / "defs"


def shipped_folders() -> list[Path]:
    """Return the folders of the declarations that come with this package."""
    return sorted(_SHIPPED.glob("*/defs"))


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


def _root_module(folder: Path) -> str | None:
    """Return the package of a project of people's own; a checkout of this package is none, its models are theirs."""
    project = folder / "pyproject.toml"
    # Python 3.10 has no parser of TOML; the name stands on a line of its own.
    found = _ITS_PACKAGE.search(limited_yaml.text_of(project)) if project.is_file() else None
    return None if found is None or found[1] == "mlops_dagster" else found[1].replace(".", "/")


def model_names(defs: Path | None = None, type_: str = TYPE) -> list[str]:
    """Return the names of the models (or of what else a type says) that there are, sorted.

    They are those that the project declares and, unless it is a package of its own, those that come with this one.

    Parameters
    ----------
    defs : Path, optional
        The folder in which alone to look.
    """
    return sorted({file.parent.name for folder in _folders(defs) for file in _declared_in(folder, type_)})


def _folders(defs: Path | None) -> list[Path]:
    if defs is not None:
        return [defs]
    own = defs_folder()
    of_a_package = any(_root_module(folder) for folder in own.parents)
    return [own] if of_a_package else [own, *(one for one in shipped_folders() if one != own)]


def _declared_in(folder: Path, type_: str) -> Iterator[Path]:
    return (file for file in folder.glob(f"*/{FILE}") if is_of(file, type_))


def find_model(name: str, defs: Path | None = None) -> Declaration:
    """Read the declaration of a model: the project's or, if it has none of this name, one that comes with this package.

    Raises
    ------
    ParameterError
        If there is no such model, or its declaration is wrong.
    """
    own = defs or defs_folder()
    for folder in (own, *([] if defs else shipped_folders())):
        if NAME.fullmatch(name) and (folder / name / FILE).is_file():
            return read_declaration(folder / name / FILE)
    names = model_names(defs)
    meant = difflib.get_close_matches(name, names, n=1)
    there = (
        f"did you mean {meant[0]}?" if meant else f"there are {', '.join(names)}." if names else "there are none yet."
    )
    ships = "" if defs else ", and none that ships has this name"
    cure = f"no such model is declared in {own}{ships}; {there} {MAKE_ONE}."
    raise refuse("model", name, cure)


def model_meant() -> Declaration:
    """Return the model that is meant where none is named: the only one there is, or the one with plain names.

    Those that come with this package are meant only where the project declares none.

    Raises
    ------
    ParameterError
        If there are none, or several and none has plain names.
    """
    names = model_names(defs_folder()) or model_names()
    if len(names) == 1:
        return find_model(names[0])
    plain = [one for one in map(find_model, names) if one.plain_names]
    if len(plain) != 1:
        there = ", ".join(names) or f"none yet. {MAKE_ONE}"
        raise refuse("model", None, f"say which. Declared here: {there}.")
    return plain[0]


def needs_no_name(model: Declaration) -> bool:
    """Whether commands that name no model mean this one, since it has plain names and the project has no other."""
    own = model_names(defs_folder()) if model.plain_names else []
    return model.plain_names and (not own or model.name in own)
