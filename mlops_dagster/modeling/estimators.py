"""From a declaration to an unfitted estimator, and what its parameters may be."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

from sklearn.base import is_classifier, is_regressor

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.constraints import as_taken, constraints_of, narrow, wrong_values
from mlops_dagster.spec.functions import calling, load_class, load_function
from mlops_dagster.spec.model import Declaration, Object
from mlops_dagster.spec.parameters import Parameter, check_parameters
from mlops_dagster.spec.steps import parameters_of


def make_estimator(declaration: Declaration, parameters: Mapping[str, Any], *, n_jobs: int = 1) -> Any:
    """Make the estimator of a declaration, not fitted yet.

    Parameters
    ----------
    parameters : mapping
        Those that differ from the declared defaults, by the declaration's names.
    n_jobs : int, default=1
        For every part that has it. What is fitted is the same for every number.

    Returns
    -------
    estimator
        Of scikit-learn's kind. Each `random_state` that nobody gives is 0, so that the same declaration makes the
        same model again.

    Raises
    ------
    ParameterError
        If the class or function isn't there or makes no estimator for the task, it doesn't take what it is given, or
        a value is none that scikit-learn takes.
    UserCodeError
        If the user's own code fails.
    """
    declared = {name: one.default for name, one in declaration.parameters.items()}
    values = check_parameters(parameters_of(declaration), {**declared, **parameters})
    if declaration.estimator.function is not None:
        function = _function(declaration, values)
        named = {_argument(declaration, name): value for name, value in values.items()}
        estimator = calling("estimator.function", function, **named)
        _check_kind(declaration, estimator, "estimator.function", declaration.estimator.function)
        _check_values(estimator, f"{declaration.estimator.function} makes a ")
    else:
        estimator = _of_class(declaration)
        estimator.set_params(**translator(declaration, estimator)(values))
        _check_values(estimator)
    return _settled(estimator, n_jobs)


def narrowed_parameters(declaration: Declaration) -> tuple[Parameter, ...]:
    """Return the declared parameters with the types and bounds that scikit-learn's own classes have, where narrower.

    Raises
    ------
    ParameterError
        If the estimator has no such parameter or none of this type, or a declared default or choice is none that it
        takes; and as :func:`make_estimator` does for the declaration alone.
    """
    if declaration.estimator.function is None:
        return _narrowed(declaration, _of_class(declaration))
    declared = {name: one.default for name, one in declaration.parameters.items() if one.default is not None}
    _function(declaration, declared)
    return _with_defaults(declaration, parameters_of(declaration))


def translator(declaration: Declaration, estimator: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what turns declared parameters into the arguments of a declared class: checked, by its own names."""
    known = {one.name: one for one in _narrowed(declaration, estimator)}
    arguments = {name: _argument(declaration, name) for name in known}
    constraints = {name: constraints_of(estimator, argument) for name, argument in arguments.items()}

    def translate(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            arguments[name]: as_taken(known[name], known[name].check(value), constraints[name])
            for name, value in values.items()
        }

    return translate


def seeded(made: Any) -> Any:
    """Give a splitter that shuffles the seed 0, if nobody gave it another."""
    if getattr(made, "random_state", 0) is None and getattr(made, "shuffle", True):
        made.random_state = 0
    return made


def make_object(declaration: Declaration, said: Object, place: str) -> Any:
    """Make an object that a declaration says by its class and arguments.

    Raises
    ------
    ParameterError
        If the class isn't scikit-learn's kind, or the user's own, or doesn't take the arguments.
    """
    found = _class(declaration, said.class_, f"{place}.class")
    arguments = {
        name: _value(declaration, value, f"{place}.arguments.{name}") for name, value in said.arguments.items()
    }
    _check_arguments(found, arguments, f"{place}.arguments")
    return seeded(calling(f"{place}.class {said.class_}", found, **arguments))


# ---------------------------------------------------------------------------------------------------- making it


def _of_class(declaration: Declaration) -> Any:
    estimator = declaration.estimator
    said = Object.model_validate({"class": estimator.class_, "arguments": estimator.arguments})
    made = make_object(declaration, said, "estimator")
    _check_kind(declaration, made, "estimator.class", estimator.class_)
    return made


def _value(declaration: Declaration, said: Any, place: str) -> Any:
    if isinstance(said, list):
        made = [_value(declaration, one, f"{place}.{at}") for at, one in enumerate(said)]
        # scikit-learn writes its steps as pairs of name and estimator.
        return tuple(made) if made and isinstance(made[0], str) and any(map(_has_parameters, made)) else made
    if isinstance(said, Mapping):
        if isinstance(said.get("class"), str) and set(said) <= {"class", "arguments"}:
            return make_object(declaration, Object.model_validate(dict(said)), place)
        return {name: _value(declaration, one, f"{place}.{name}") for name, one in said.items()}
    return said


def _class(declaration: Declaration, path: str, place: str) -> Any:
    found = load_class(declaration, path, place)
    # Asked before anything is called: importing a class does little, calling one may do anything.
    of_sklearn = getattr(found, "__module__", "").startswith("sklearn.")
    if not isinstance(found, type) or not (of_sklearn or path.startswith(".") or _is_estimator(found)):
        raise refuse(place, path, "it is no estimator; give a class of scikit-learn's kind, with fit and get_params.")
    return found


def _is_estimator(found: Any) -> bool:
    return all(callable(getattr(found, name, None)) for name in ("fit", "get_params", "set_params"))


def _has_parameters(made: Any) -> bool:
    return hasattr(made, "get_params") and not isinstance(made, type)


def _check_arguments(found: type, arguments: Mapping[str, Any], place: str) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # of compiled classes there may be none
        return
    takes = signature.parameters.values()
    known = [one.name for one in takes if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    anything = any(one.kind == one.VAR_KEYWORD for one in takes)
    for name, value in arguments.items():
        if name == "n_jobs":
            raise refuse(f"{place}.n_jobs", value, "how many cores to use isn't the model's to say; leave it out.")
        if name not in known and not anything:
            raise refuse(f"{place}.{name}", value, f"{found.__name__} takes no {name}; {_nearest(name, known)}")
    lacks = [one.name for one in takes if one.default is one.empty and one.name in known and one.name not in arguments]
    if lacks:
        raise refuse(place, dict(arguments), f"{found.__name__} needs {', '.join(lacks)}; give it.")


def _function(declaration: Declaration, values: Mapping[str, Any]) -> Any:
    said = declaration.estimator.function
    assert said is not None
    function = load_function(declaration, said, "estimator.function")
    if not callable(function):
        raise refuse("estimator.function", said, f"it is {type(function).__name__}; give a function.")
    takes = inspect.signature(function).parameters
    anything = any(one.kind == one.VAR_KEYWORD for one in takes.values())
    for name in declaration.parameters:
        argument = _argument(declaration, name)
        if argument not in takes and not anything:
            raise refuse(
                _place(declaration, name), argument, f"{said} takes no {argument}; {_nearest(argument, takes)}"
            )
    given = {_argument(declaration, name) for name in values}
    lacks = [
        name
        for name, one in takes.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and name not in given
    ]
    if lacks:
        cure = f"it needs {', '.join(lacks)}; declare it in parameters with a default, or give the function one."
        raise refuse("estimator.function", said, cure)
    return function


def _check_kind(declaration: Declaration, made: Any, place: str, said: Any) -> None:
    if isinstance(made, type) or not _is_estimator(made):
        cure = "return an estimator of scikit-learn's kind, not fitted." if "function" in place else "name another."
        raise refuse(place, said, f"what it makes is no estimator ({type(made).__name__}); {cure}")
    fits = is_classifier(made) if declaration.task == "classification" else is_regressor(made)
    if not fits or not hasattr(type(made), "predict"):
        kind = "classifier" if declaration.task == "classification" else "regressor"
        cure = f"{type(made).__name__} is no {kind}; name one, or change the task."
        raise refuse(place, said, f"the task is {declaration.task}, and {cure}")


def _argument(declaration: Declaration, name: str) -> str:
    return declaration.parameters[name].argument or name


def _place(declaration: Declaration, name: str) -> str:
    return f"parameters.{name}" + (".argument" if declaration.parameters[name].argument else "")


def _settled(estimator: Any, n_jobs: int) -> Any:
    """Set what nobody has to say: the seeds, and how many cores."""
    for name, value in estimator.get_params(deep=True).items():
        last = name.rpartition("__")[2]
        if last == "n_jobs" and (value, n_jobs) != (None, 1):  # they are the same, but some warn if it is given
            estimator.set_params(**{name: n_jobs})
        elif last == "random_state" and value is None:
            estimator.set_params(**{name: 0})
        elif last == "random_state" and not isinstance(value, Integral):
            cure = "it would make another model each time; give an integer."
            raise refuse(f"estimator.{name}", type(value).__name__, cure)
    return estimator


# ------------------------------------------------------------------------------------------------ its parameters


def _narrowed(declaration: Declaration, estimator: Any) -> tuple[Parameter, ...]:
    known = estimator.get_params(deep=True)
    narrowed = []
    for parameter in parameters_of(declaration):
        argument = _argument(declaration, parameter.name)
        if argument.rpartition("__")[2] == "n_jobs":
            cure = "how many cores to use isn't the model's to say; leave it out."
            raise refuse(_place(declaration, parameter.name), argument, cure)
        if argument not in known:
            of = type(estimator).__name__
            cure = f"{of} has no parameter {argument}; {_nearest(argument, known)}"
            raise refuse(_place(declaration, parameter.name), argument, cure)
        narrowed.append(narrow(parameter, constraints_of(estimator, argument), type(estimator).__name__))
    return _with_defaults(declaration, narrowed)


def _with_defaults(declaration: Declaration, narrowed: Iterable[Parameter]) -> tuple[Parameter, ...]:
    narrowed = tuple(narrowed)
    for parameter in narrowed:
        default = declaration.parameters[parameter.name].default
        if default is not None:
            replace(parameter, name=f"parameters.{parameter.name}.default").check(default)
    return narrowed


def _check_values(estimator: Any, maker: str = "") -> None:
    for name, value, of, takes in wrong_values(estimator):
        raise refuse(f"estimator.{name}", value, f"{maker}{of}{' that' if maker else ''} takes {takes}.")


def _nearest(name: str, known: Iterable[str]) -> str:
    known = [one for one in known if one != "n_jobs" and not one.endswith("__n_jobs")]
    meant = difflib.get_close_matches(name, known, n=1) or [
        one for one in known if one.rpartition("__")[2] == name.rpartition("__")[2]
    ]
    return f"did you mean {meant[0]}?" if meant else f"there are {', '.join(sorted(known))}."
