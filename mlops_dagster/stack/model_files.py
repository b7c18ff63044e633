"""The files of a registered model: what they need, and what is looked at before one is opened.

A model file is code as soon as it is a pickle, and MLflow loads whatever module a model names. So a version is opened
only if it is what this project registers: an estimator in the skops format, of types that we or its declaration trust,
whose bytes have the digest that was written down when it was trained.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import limited_yaml
from mlops_dagster.stack.secrets import redacted
from mlops_dagster.stack.trusted_types import types_in, untrusted

DESCRIPTION = "MLmodel"
FILE = "model.skops"
# Given, not inferred: MLflow infers them by loading the model in a new process, which takes 6 to 10 seconds and lists
# whatever else happens to be imported there.
MODEL_REQUIREMENTS = ("mlflow", "numpy", "pandas", "scikit-learn", "skops")


class ModelRefused(MlopsError):  # noqa: N818 it reads better where it is caught
    """A registered model is gone, damaged, or not what this project would have registered.

    Attributes
    ----------
    why : str
        What is wrong, a sentence; the message has the cure besides.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why} Train again (mlops build-model), or roll back (mlops rollback).")
        self.why = why


def open_model(folder: Path, uri: str, file_sha256: str, model_digest: str, trusted: Sequence[str] = ()) -> Any:
    """Open the model of a version, if it is what was registered.

    Parameters
    ----------
    uri : str
        The version's address, for messages.
    trusted : sequence of str
        Types that it may hold beside scikit-learn's own, from its declaration.

    Raises
    ------
    ModelRefused
        If it isn't.
    """
    import skops.io

    from mlops_dagster.modeling.digest import model_digest as digest_of

    def refuse(why: str) -> ModelRefused:
        return ModelRefused(f"{uri} isn't loaded: {why}.")

    for name in (DESCRIPTION, FILE):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise refuse(f"there is no file {name}")
    try:
        described = limited_yaml.load(limited_yaml.text_of(folder / DESCRIPTION))
        flavors = described["flavors"]
        loader, path = flavors["python_function"]["loader_module"], flavors["python_function"]["model_path"]
        how, other = flavors["sklearn"]["serialization_format"], flavors["sklearn"]["pickled_model"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise refuse(f"its MLmodel file can't be understood ({short(error)})") from None
    if loader != "mlflow.sklearn":
        raise refuse(f"it names the loader {loader!r}, which could run anything")
    if how != "skops":
        raise refuse(f"its format is {how!r}, which can run code when it is loaded; skops can't")
    if {path, other} != {FILE}:
        raise refuse(f"it names the file {path!r} instead of {FILE!r}")
    # Read once: what is checked is what is opened, whoever writes to the file meanwhile.
    content = (folder / FILE).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != file_sha256:
        raise refuse(f"its file's SHA-256 is {found[:12]}..., registered was {file_sha256[:12]}...")
    try:
        types = types_in(content)
        if strange := untrusted(types, trusted):
            raise refuse(f"it holds types that aren't trusted: {', '.join(strange)}")
        model = skops.io.loads(content, trusted=sorted(types))
    except MlopsError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything
        raise refuse(f"its file can't be read ({short(error)})") from None
    if digest_of(model) != model_digest:
        raise refuse("the model in it isn't the one that was registered")
    return model


_version = cache(version)


def requirements_of(types: Iterable[str]) -> list[str]:
    """Return what it takes to open a model of these types, at the versions that are here."""
    libraries = {*MODEL_REQUIREMENTS}
    modules = {one.partition(".")[0] for one in types} - {*sys.stdlib_module_names, "sklearn", "numpy", "scipy"}
    if modules:
        owners = packages_distributions()
        libraries |= {owner for module in modules for owner in owners.get(module, [])}
    return [f"{library}=={_version(library)}" for library in sorted(libraries)]


@contextmanager
def saved_as(content: bytes, model: Any) -> Iterator[None]:
    """Let MLflow save a model as the file that it is already, and not compare our requirements with what is installed.

    MLflow would store it once more and open it, and read which modules all packages have: a second in a new process. It
    would find nothing: requirements are the packages' own names, at the versions that are here.
    """
    import mlflow.sklearn as flavor
    from mlflow.utils import environment
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches as compare

    def save(sk_model: Any, output_path: str, *settings: Any, **more: Any) -> None:
        if sk_model is model:
            Path(output_path).write_bytes(content)
        else:  # another thread's
            original(sk_model, output_path, *settings, **more)

    theirs: Any = flavor
    parts: Any = environment
    original = _original_save()
    theirs._save_model, parts.warn_dependency_requirement_mismatches = save, lambda model_requirements: None
    try:
        yield
    finally:
        theirs._save_model, parts.warn_dependency_requirement_mismatches = original, compare


@cache
def _original_save() -> Any:
    import mlflow.sklearn as flavor

    theirs: Any = flavor
    return theirs._save_model


def short(error: BaseException) -> str:
    """Return an error in a line of up to 200 characters."""
    text = redacted(f"{type(error).__name__}: {error}".splitlines()[0])
    return text if len(text) <= 200 else f"{text[:200]}..."
