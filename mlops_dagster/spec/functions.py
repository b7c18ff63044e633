"""The user's own functions: those beside a declaration, and those of packages."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from mlops_dagster.errors import MlopsError, extra_of, install, refuse
from mlops_dagster.spec.model import Dataset, Declaration

MODULES = "mlops_dagster_models"
"""Where the modules beside declarations are kept in ``sys.modules``, below their model's name."""


class UserCodeError(MlopsError):
    """Code of the user's own can't be imported, or has failed; the message says which and why."""


def load_function(declaration: Dataset, said: str, place: str = "function") -> Any:
    """Return what ``.module:name`` (a file beside the declaration) or ``package.module:name`` says.

    Parameters
    ----------
    place : str
        Where in the declaration it is said, for messages.

    Raises
    ------
    ParameterError
        If there is no such file, package or name.
    UserCodeError
        If importing it fails.
    """
    where, _, name = said.partition(":")
    return _named(declaration, where, name, said, place)


def load_class(declaration: Dataset, path: str, place: str = "class") -> Any:
    """Return the class at an import path, of a file beside the declaration if it begins with a dot."""
    where, _, name = path.rpartition(".")
    return _named(declaration, where, name, path, place)


def function_of(declaration: Dataset, said: object) -> Any:
    """Return the function that a part of a declaration names, or None where it says something else, or nothing."""
    return load_function(declaration, said) if isinstance(said, str) and ":" in said else None


def trusted_types(declaration: Declaration) -> list[str]:
    """Return the types that a stored model may hold, by their full names; those of files beside it are imported.

    Raises
    ------
    ParameterError
        If one of those isn't there.
    """
    names = []
    for said in declaration.estimator.trusted:
        found = load_class(declaration, said, "estimator.trusted") if said.startswith(".") else None
        names.append(f"{found.__module__}.{found.__qualname__}" if found else said)
    return names


def _named(declaration: Dataset, where: str, name: str, said: str, place: str) -> Any:
    module = _beside(declaration, where, said, place) if where.startswith(".") else _packaged(where, said, place)
    if not hasattr(module, name):
        there = [one for one in vars(module) if not one.startswith("_")]
        meant = difflib.get_close_matches(name, there, n=1)
        cure = f"{where} has no {name}; " + (f"did you mean {meant[0]}?" if meant else "write it there.")
        raise refuse(place, said, cure)
    return getattr(module, name)


def _beside(declaration: Dataset, where: str, said: str, place: str) -> ModuleType:
    file = _file_of(declaration, where)
    if not file.is_file():
        raise refuse(place, said, f"there is no file {file}; write it, or name another.")
    # Two models may each have a `model.py`, and in Dagster's UI a file that has changed is read anew.
    name = f"{MODULES}.{declaration.name}.{file.stem}"
    content = (str(file.resolve()), hashlib.sha256(file.read_bytes()).hexdigest())
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__content__", None) == content:
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise refuse(place, said, f"{file} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    module.__content__ = content  # type: ignore[attr-defined]
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserCodeError(f"{file}{_line(error, file)}: {type(error).__name__}: {error}") from error
    # The processes of a search can't import it by its name: what it defines travels to them as it is.
    with suppress(ModuleNotFoundError):
        from joblib.externals.cloudpickle import register_pickle_by_value

        register_pickle_by_value(module)
    return module


def _file_of(declaration: Dataset, where: str) -> Path:
    beside = declaration.folder.parent if where.startswith("..") else declaration.folder
    return beside.joinpath(*where.lstrip(".").split(".")).with_suffix(".py")


def _line(error: Exception, file: Path) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    at, line = error.__traceback__, ""
    while at is not None:
        if at.tb_frame.f_code.co_filename == str(file):
            line = f":{at.tb_lineno}"
        at = at.tb_next
    return line


def _packaged(where: str, said: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        cure = f"install it ({install(error.name)})" if extra_of(error.name) else "install it"
        raise refuse(place, said, f"there is no module {error.name}; {cure}, or mend the path.") from None
    except Exception as error:
        raise UserCodeError(f"{where} can't be imported: {type(error).__name__}: {error}") from error


def calling(what: str, function: Any, *arguments: Any, **named: Any) -> Any:
    """Call a user's function; what it raises is said with the file and the line in which it did.

    Raises
    ------
    UserCodeError
        If it raises anything but an error of ours.
    """
    try:
        return function(*arguments, **named)
    except MlopsError:
        raise
    except Exception as error:
        code = getattr(function, "__code__", None)
        file = Path(code.co_filename) if code else Path(str(function))
        raise UserCodeError(f"{what}: {file}{_line(error, file)}: {type(error).__name__}: {error}") from error


def sources_of(declaration: Dataset) -> list[Path]:
    """Return the files that decide what a model is, beside the data: the declaration and the Python that it names."""
    text = json.dumps(declaration.model_dump(mode="json", by_alias=True))
    others = {_file_of(declaration, where) for where in re.findall(r'"(\.\.[A-Za-z_][\w.]*):[A-Za-z_]\w*"', text)}
    beside = (file for file in declaration.folder.glob("[!.]*") if file.suffix in (".py", ".yaml"))
    return sorted({*beside, *(file for file in others if file.is_file())})
