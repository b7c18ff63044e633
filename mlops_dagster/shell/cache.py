"""`mlops cache`: what searches have grown and keep."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mlops_dagster.errors import refuse
from mlops_dagster.shell.output import AsJson, DeploymentName, handle_errors, out, print_json

app = typer.Typer(help="The trees that searches have grown, kept so that none is grown twice.", no_args_is_help=True)


def cache_folder(settings: Any) -> Path:
    """Return the folder that keeps what searches have grown."""
    from mlops_dagster import steps

    folder: Path = settings.state_dir / steps.SEARCH_CACHE
    return folder


@app.command()
def show(deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Show how much is kept."""
    with handle_errors(as_json):
        from mlops_dagster.search import SearchCache
        from mlops_dagster.stack.deployment_files import load_deployment

        folder = cache_folder(load_deployment(deployment))
        kept = SearchCache(folder).describe()
        size = sum(one["bytes"] for one in kept)
        if as_json:
            print_json({"folder": str(folder), "bytes": size, "forests": kept})
            return
        entries = sum(one["entries"] for one in kept)
        out.print(f"{folder}: {_megabytes(size)}, {entries:,} sums of {len(kept):,} forests")
        if kept:
            used = sorted(one["used"] for one in kept)
            first, last = (f"{datetime.fromtimestamp(one):%Y-%m-%d %H:%M}" for one in (used[0], used[-1]))
            out.print(f"last used between {first} and {last}")


@app.command()
def prune(
    older_than_days: Annotated[
        float | None, typer.Option(help="Remove what wasn't used for this many days; 0 removes all.", min=0)
    ] = None,
    max_mb: Annotated[
        float | None, typer.Option(help="Remove the oldest until no more than this is left.", min=0)
    ] = None,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Remove what is old, or too much. A search grows again what it no longer finds."""
    with handle_errors(as_json):
        if older_than_days is None and max_mb is None:
            cure = "say what to remove: --older-than-days 30, or --max-mb 500, or both."
            raise refuse("older_than_days", None, cure)
        from mlops_dagster.search import SearchCache
        from mlops_dagster.stack.deployment_files import load_deployment

        kept = SearchCache(cache_folder(load_deployment(deployment)))
        most = None if max_mb is None else int(max_mb * 1e6)
        freed = kept.prune(older_than_days=older_than_days, max_bytes=most)
        left = sum(one["bytes"] for one in kept.describe())
        if as_json:
            print_json({"freed_bytes": freed, "bytes": left})
        else:
            out.print(f"{_megabytes(freed)} removed, {_megabytes(left)} left")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
