"""What Dagster's catalog shows of every asset besides its own words: a link to its step's code, and tags."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import BetaWarning

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.spec.functions import sources_of
from mlops_dagster.stack.provenance import PACKAGE, code_url
from mlops_dagster.steps.functions import step_function


def with_code_and_tags(assets: Iterable[dg.AssetsDefinition], model: OfModel) -> list[dg.AssetsDefinition]:
    """Give each asset a link to its step's code, and the pipelines that it is part of as tags.

    The link leads to where the checkout was pushed to (GitHub or GitLab), or else to the files of this machine. There
    are links to the model's own files, too.
    """
    url, declaration = code_url(), model.declaration

    def shown(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.path[-1]
        step = step_function(declaration, name)
        own = [
            dg.LocalFileCodeReference(file_path=str(file), label=f"{model.name}: {file.name}")
            for file in sources_of(declaration)
        ]
        links = dg.CodeReferencesMetadataValue(code_references=[*own, _link(step, url)])
        tags = {pipeline.name: "" for pipeline in model.pipelines if name in {step.name for step in pipeline.steps}}
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
