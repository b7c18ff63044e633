"""What Dagster's catalog shows of every asset besides what the asset says itself: links to its code, and tags."""

import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import dagster as dg
from dagster import BetaWarning

from mlops_dagster import pipelines, steps
from mlops_dagster.stack.provenance import PACKAGE, code_url


def with_code_and_tags(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Give each asset links to its own code and to its step's, and the pipelines that it is part of as tags.

    The links lead to where the checkout was pushed to (GitHub or GitLab), or else to the files of this machine.
    """
    url = code_url()

    def shown(asset: dg.AssetsDefinition, spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        parts = [("the asset", _place(asset.op.compute_fn.decorated_fn)), ("its step", _place(getattr(steps, name)))]  # type: ignore[union-attr]
        links = dg.CodeReferencesMetadataValue(code_references=[_link(what, *place, url) for what, place in parts])
        tags = {pipeline.name: "" for pipeline in pipelines.PIPELINES if name in {step.name for step in pipeline.steps}}
        return spec.merge_attributes(metadata={"dagster/code_references": links}, tags=tags)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)  # Dagster calls code references beta
        return [asset.map_asset_specs(partial(shown, asset)) for asset in assets]


def _place(function: object) -> tuple[Path, int]:
    code = function.__code__  # type: ignore[attr-defined]
    return Path(code.co_filename), code.co_firstlineno


def _link(what: str, file: Path, line: int, url: str | None) -> dg.LocalFileCodeReference | dg.UrlCodeReference:
    label = f"{what}: {file.relative_to(PACKAGE)}"
    if url is None:
        return dg.LocalFileCodeReference(file_path=str(file), line_number=line, label=label)
    return dg.UrlCodeReference(url=f"{url}/{file.relative_to(PACKAGE).as_posix()}#L{line}", label=label)
