"""The Dagster component of a declared model: `type: mlops_dagster.SklearnModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import BaseModel

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.declared import definitions_of_one, deployment_of
from mlops_dagster.errors import refuse
from mlops_dagster.spec.model import NAME, Declaration
from mlops_dagster.spec.model import Dataset as Table
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.spec.reading import FILE, read_dataset, read_declaration
from mlops_dagster.stack.deployment import Deployment


class _Attributes(BaseModel, extra="allow"):
    """Any attributes: `read_declaration` reads them, and says more of what is wrong. `dg check yaml` has the schema."""

    @classmethod
    def model_json_schema(cls, *how: Any, **more: Any) -> dict[str, Any]:
        """Return the schema of a declaration."""
        return Declaration.model_json_schema(*how, **more)


class _Scaffolder(dg.Scaffolder):
    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        name = request.target_path.name
        if not NAME.fullmatch(name):
            cure = "give 1 to 40 small letters, digits or _, beginning with a letter: tables and jobs are named so."
            raise refuse("name", name, cure)
        if request.scaffold_format != "yaml" or request.append:
            cure = "a model is declared in a defs.yaml of its own; in Python it is mlops_dagster.SklearnModel(...)."
            raise refuse("format", request.scaffold_format, cure)
        (request.target_path / FILE).write_text(_TEMPLATE.replace("NAME", name))


class _Table(_Attributes):
    @classmethod
    def model_json_schema(cls, *how: Any, **more: Any) -> dict[str, Any]:
        """Return the schema of a dataset."""
        return Table.model_json_schema(*how, **more)


@dg.scaffold_with(_Scaffolder)
class SklearnModel(dg.Component):
    """A scikit-learn model, declared: its data, contract, split, estimator, search, gate and predictions.

    It becomes assets, checks, jobs and a schedule. ``dg scaffold defs mlops_dagster.SklearnModel NAME`` writes a
    declaration with comments; ``mlops new NAME --data FILE --target COLUMN`` proposes one that fits a table.

    Parameters
    ----------
    declaration : Declaration
        What the model is.
    deployment : Deployment or str, optional
        Where its tables and models are kept, or the name of that. Not given: as ``MLOPS_DEPLOYMENT`` says.
    """

    def __init__(self, declaration: Declaration, deployment: Deployment | str | None = None) -> None:
        self.declaration, self.deployment = declaration, deployment

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the schema of the attributes."""
        return _Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> SklearnModel:
        """Read the declaration, whose errors name file and line."""
        return cls(read_declaration(context.path / FILE))

    @classmethod
    def get_code_references_for_yaml(cls, *_: Any) -> Sequence[Any]:
        """Return nothing: each asset links to all files of its model already."""
        return []

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the model's assets, checks, jobs, schedule and sensor."""
        return definitions_of_one(OfModel(self.declaration), deployment_of(self.deployment))


class Dataset(dg.Component):
    """A table that several models share: where its rows come from, and what they have to be.

    It becomes one asset, ``NAME/data``, for all models that say ``data: {dataset: NAME}``, and its check.

    Parameters
    ----------
    models : sequence of Declaration
        Those that share it.
    deployment : Deployment or str, optional
        As for :class:`SklearnModel`.
    """

    def __init__(self, models: Sequence[Declaration], deployment: Deployment | str | None = None) -> None:
        self.models, self.deployment = models, deployment

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the schema of the attributes."""
        return _Table

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Dataset:
        """Read the dataset, whose errors name file and line, and the models beside it."""
        name = read_dataset(context.path / FILE).name
        defs = context.path.parent
        models = [find_model(one, defs) for one in model_names(defs)]
        return cls([one for one in models if one.data_owner == name])

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the asset and its check; nothing if no model shares it."""
        if not self.models:
            return dg.Definitions()
        return definitions_of_one(OfModel(self.models[0], dataset=True), deployment_of(self.deployment))


_TEMPLATE = """\
type: mlops_dagster.SklearnModel
attributes:
  description: What NAME is for, in a sentence.
  task: classification                     # or regression
  data:
    files: {path: NAME.csv}                # beside this file; also a glob, a URL, .parquet, .xlsx; or sql, function
  contract:                                # what each column has to hold; rows that break it are refused
    id: {type: integer, unique: true}
    age: {type: number, nullable: true, minimum: 0, maximum: 120, description: "[years]"}
    outcome: {type: text, allowed: ["no", "yes"]}
  key: [id]                                # which columns identify a row
  # time: day                              # which orders rows; group: which belong together
  features: [age]                          # columns, or .features:make, a function in features.py beside this file
  target: outcome                          # for forecasts: {column: sales, horizon: 14}
  split: {kind: stratified, test_size: 0.25, seed: 0}      # random, group, chronological, column
  estimator:                               # any scikit-learn estimator; or function: .model:make
    class: sklearn.ensemble.HistGradientBoostingClassifier
    arguments: {random_state: 0}
  parameters:                              # what people may change, in the launchpad as in the shell
    learning_rate: {default: 0.1, minimum: 0.001, maximum: 1, description: How much each tree corrects.}
    max_leaf_nodes: {default: 31, minimum: 2, maximum: 1000, description: How many leaves a tree has at most.}
  metrics: [roc_auc, accuracy]             # scikit-learn's names; the first is the one that counts
  baseline: prior                          # what the model has to be better than
  search:
    presets:
      small: {learning_rate: [0.05, 0.1, 0.2], max_leaf_nodes: [15, 31, 63]}
    cv: {kind: stratified, folds: 5}
  gate: {mode: enabled, beat_baseline: true}               # which new model becomes the champion
  predictions:
    output: [class, probabilities]
    # schedule: "0 6 * * *"                # cron, in UTC; or {cron: ..., timezone: Europe/London}
"""
