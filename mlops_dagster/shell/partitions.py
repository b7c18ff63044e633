"""For which partitions a command runs."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mlops_dagster.errors import refuse
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.parameters import check_partition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlops_dagster.spec.model import Declaration

_PATTERN = set("*?[")


def partitions_to_run(
    declaration: Declaration, chosen: Sequence[str], everything: bool | None = None, deployment: str | None = None
) -> list[str]:
    """Return for which partitions a command runs: those that were chosen, or all; ``all`` if the model has none.

    Parameters
    ----------
    chosen : sequence of str
        Partitions, and patterns of them as a shell has them: ``S*``.
    everything : bool, optional
        What the option ``--all`` says. Not given: the command has none.
    deployment : str, optional
        Its name: it may say where the rows are.

    Raises
    ------
    ParameterError
        If it has some and none was chosen, or one was chosen and it has none, or a pattern fits none.
    """
    if declaration.partitions is None:
        if chosen:
            raise refuse("partition", chosen[0], f"{declaration.name} has one model for all rows; leave it out.")
        return [names.ALL]
    option = str(names.partition_option(declaration))
    patterns = [one for one in chosen if _PATTERN & set(one)]
    if chosen and not patterns:
        return [check_partition(one, declaration.partitions.name) for one in chosen]
    there = _there(declaration, deployment)
    some = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
    if everything and not chosen:
        return there
    if not chosen:
        or_all = "" if everything is None else ", or --all"
        raise refuse(option, None, f"say which --{option}{or_all}; there are {some or 'none'}.")
    found: list[str] = []
    for one in chosen:
        fits = [key for key in there if fnmatchcase(key, one)] if one in patterns else [check_partition(one, option)]
        if not fits:
            raise refuse(option, one, f"no partition fits this pattern; there are {some or 'none'}.")
        found += fits
    return list(dict.fromkeys(found))


def _there(declaration: Declaration, deployment: str | None) -> list[str]:
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.table_sources import partitions_of

    settings = load_deployment(deployment)
    there = partitions_of(declaration, given=settings.data_parameters(declaration)) or []
    return list(dict.fromkeys([*there, *settings.partitions.get(declaration.data_owner, [])]))


def partitions_in(file: Path | None) -> list[str]:
    """Return the partitions that a file lists, one a line; what stands behind a ``#`` is a comment.

    Raises
    ------
    ParameterError
        If it can't be read, or lists none.
    """
    if file is None:
        return []
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise refuse("partitions-file", str(file), f"it can't be read ({error}).") from None
    found = [key for line in text.splitlines() if (key := line.partition("#")[0].strip())]
    if not found:
        raise refuse("partitions-file", str(file), "it lists no partition; give one a line.")
    return found
