"""Finding and reading a deployment: by its name or its file, with every problem named."""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from mlops_dagster.errors import MlopsError
from mlops_dagster.stack import deployment_rules
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_reading import read_file, unreadable_variables, wrong_settings


class DeploymentError(MlopsError):
    """A deployment file is missing or says something that can't be; the message names file, setting and cure.

    Attributes
    ----------
    problems : tuple of str
        What is wrong, a sentence each.
    """

    exit_status = 2

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


def find_deployment_file(name: str) -> Path | None:
    """Find the file of a deployment: a path as given, or ``deployments/<name>.yaml`` here or in the checkout.

    Raises
    ------
    DeploymentError
        If there is no such file. Only "local" may lack one: it is what the defaults say.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise DeploymentError(f"MLOPS_DEPLOYMENT={name!r}: there is no such file; give the path of a YAML file.")
    for folder in deployment_folders():
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    if name == "local":
        return None
    raise DeploymentError(
        f"MLOPS_DEPLOYMENT={name!r}: there is no such deployment; there are {', '.join(deployment_names())}."
    )


def deployment_folders() -> list[Path]:
    """Return where deployments are looked for by name: below the working directory, then in the checkout."""
    return [Path.cwd() / "deployments", Path(__file__).parents[2] / "deployments"]


def deployment_names() -> list[str]:
    """Return the names of all deployments that are found; "local" is always there."""
    return sorted({file.stem for folder in deployment_folders() for file in folder.glob("*.yaml")} | {"local"})


def load_deployment(name: str | None = None) -> Deployment:
    """Read a deployment.

    Parameters
    ----------
    name : str, optional
        Its name, or the path of its file. Not given: the environment variable ``MLOPS_DEPLOYMENT``, else "local".

    Raises
    ------
    DeploymentError
        If the file is missing, isn't YAML, has an unknown or wrong setting, or holds a secret, and if its settings
        can't go together. Each problem is named.
    """
    file = find_deployment_file(name or os.environ.get("MLOPS_DEPLOYMENT") or "local")
    where = f"deployment {file or 'the environment'}"
    try:
        said = read_file(file) if file else {}
    except (OSError, ValueError) as error:
        raise DeploymentError(f"{where} can't be read: {error}", [f"can't be read: {error}"]) from None
    # A wrong value may be a secret in a wrong place, so these come first.
    problems = deployment_rules.secrets_in_file(said)

    class DeploymentOfFile(Deployment):
        file_says = said

    DeploymentOfFile.file = file

    try:
        deployment = DeploymentOfFile()
        problems += deployment_rules.problems(deployment)
    except ValidationError as error:
        problems += wrong_settings(error.errors(), Deployment, prefix="MLOPS_", said_already=problems, file=file)
    except (SettingsError, RecursionError) as error:
        wrong = unreadable_variables(os.environ, Deployment, "MLOPS_") or [f"a variable can't be read: {error}"]
        raise DeploymentError(f"the environment: {' '.join(wrong)}", wrong) from None
    except ValueError as error:
        problems.append(f"can't be read: {error}")
    if problems:
        several = len(problems) > 1
        listed = "".join(f"\n- {problem}" for problem in problems) if several else f" {problems[0]}"
        raise DeploymentError(f"{where}:{listed}", problems)
    return deployment
