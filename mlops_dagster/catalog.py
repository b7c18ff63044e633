"""What Dagster's catalog shows of every asset besides its own words: a link to its step's code, and tags."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import BetaWarning

from mlops_dagster import pipelines, steps
from mlops_dagster.stack.provenance import PACKAGE, code_url


def with_code_and_tags(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Give each asset a link to its step's code, and the pipelines that it is part of as tags.

    The link leads to where the checkout was pushed to (GitHub or GitLab), or else to the files of this machine.
    """
    url = code_url()

    def shown(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        links = dg.CodeReferencesMetadataValue(code_references=[_link(getattr(steps, name), url)])
        tags = {pipeline.name: "" for pipeline in pipelines.PIPELINES if name in {step.name for step in pipeline.steps}}
        return spec.merge_attributes(metadata={"dagster/code_references": links}, tags=tags)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)  # Dagster calls code references beta
        return [asset.map_asset_specs(shown) for asset in assets]


def _link(step: Any, url: str | None) -> dg.LocalFileCodeReference | dg.UrlCodeReference:
    file, line = Path(step.__code__.co_filename), step.__code__.co_firstlineno
    label = f"its step: {file.relative_to(PACKAGE)}"
    if url is None:
        return dg.LocalFileCodeReference(file_path=str(file), line_number=line, label=label)
    return dg.UrlCodeReference(url=f"{url}/{file.relative_to(PACKAGE).as_posix()}#L{line}", label=label)
