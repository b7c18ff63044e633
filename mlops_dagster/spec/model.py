"""The declaration of a model: what a data scientist writes, once, in his own words. Every tool is made from it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from mlops_dagster.spec.times import Calendar, Cron, TimeZone

if TYPE_CHECKING:
    from typing_extensions import Self

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FUNCTION = r"^\.{0,2}[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
_FUNCTION_SAID = (
    "'.module:function' for a file beside the declaration, '..other.module:function' for one beside another's, or "
    "'package.module:function'"
)


class Part(BaseModel):
    """A part of a declaration: unknown names are refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, strict=True)


# ------------------------------------------------------------------------------------------- parameters, schedules


class Schedule(Part):
    """When something runs by itself."""

    cron: Cron = Field(description="Minute, hour, day, month, weekday")
    timezone: TimeZone = Field(default="UTC", description="Of whose clocks, by its IANA name")
    default: Literal["running", "stopped"] | None = Field(
        default=None,
        description="Whether it is on before somebody turns it on or off in Dagster. Not given: running for "
        "predictions, stopped for searches, which cost the most",
    )


MaybeSchedule = Annotated[
    Schedule | None,
    BeforeValidator(
        lambda said: {"cron": said} if isinstance(said, str) else said, json_schema_input_type=str | Schedule
    ),
]


class ModelParameter(Part):
    """A parameter that people may change, in every tool."""

    default: int | float | bool | str | None = Field(description="What holds if nobody says anything else")
    type: Literal["integer", "number", "boolean", "text"] | None = Field(
        default=None, description="Not given: the default's"
    )
    minimum: float | None = Field(default=None, description="The smallest value. Not given: the estimator's own")
    maximum: float | None = Field(default=None, description="The largest value. Not given: the estimator's own")
    choices: list[str] | None = Field(default=None, min_length=1, description="Of a text: what it may be")
    description: str = Field(default="", description="A sentence for forms and --help")
    argument: str | None = Field(
        default=None, description="The estimator's name for it, as model__max_depth. Not given: the same name"
    )


# ------------------------------------------------------------------------------------------------------------ data


class Files(Part):
    """One or several files of rows."""

    path: str = Field(
        description="A path (relative ones begin where the declaration is), a glob of several, or a URL; {name} stands "
        "for the partition"
    )
    format: Literal["csv", "parquet", "excel", "delta"] | None = Field(
        default=None, description="Not given: by the file's name. CSV may be compressed (.gz, .bz2, .xz, .zip)"
    )
    separator: str = Field(default=",", min_length=1, max_length=1, description="Of CSV files, between values")
    decimal: Literal[".", ","] = Field(default=".", description="Of CSV files, in numbers")
    thousands: Literal[",", ".", " ", "'"] | None = Field(default=None, description="Of CSV files, in large numbers")
    encoding: str = Field(default="utf-8", description="Of CSV files")
    dates: dict[str, str] = Field(
        default={}, description="Of CSV and Excel files: how each column of dates is written, as %Y-%m-%d"
    )
    missing: list[str] = Field(default=[""], description="Of CSV files: the texts that mean 'no value'")
    index: bool = Field(default=False, description="Whether the first column has no name and only counts rows")
    sheet: str | None = Field(default=None, description="Of Excel files. Not given: the first")


class Sql(Part):
    """The rows of a query."""

    url: str = Field(
        pattern=r"^[A-Z_][A-Z0-9_]*$", description="The NAME of the environment variable that holds SQLAlchemy's URL"
    )
    query: str = Field(description="One SELECT; :name stands for the partition")


class Data(Part):
    """Where the rows come from: exactly one of these."""

    files: Files | None = Field(default=None, description="Files of rows")
    sql: Sql | None = Field(default=None, description="A database's query")
    table: str | None = Field(
        default=None,
        pattern=r"^[^.]+(\.[^.]+){0,2}$",
        description="catalog.schema.table, read by the deployment's Spark",
    )
    asset: str | None = Field(default=None, description="Another Dagster asset's key, its value a table")
    function: str | None = Field(
        default=None, pattern=_FUNCTION, description=f"{_FUNCTION_SAID}; called with the partition if there are any"
    )
    dataset: str | None = Field(
        default=None,
        pattern=f"^{NAME.pattern}$",
        description="The name of a Dataset beside the model, whose table several models share. What it says (contract, "
        "key, time, group, partitions) isn't said again",
    )
    parameters: dict[str, ModelParameter] = Field(
        default={}, description="Of function: what a run may give it, by name; None where there is no default"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Data:
        sources = [name for name in type(self).model_fields if name != "parameters"]
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(sources)}; given: {', '.join(given) or 'none'}")
        if self.parameters and self.function is None:
            raise ValueError("parameters are a function's; nothing else takes any")
        return self


class Column(Part):
    """What a column has to hold. Rows that break it are refused as a whole; nothing is filled in."""

    type: Literal["integer", "number", "boolean", "text", "date"] = Field(description="What its values are")
    nullable: bool = Field(default=False, description="Whether values may be missing")
    minimum: float | str | None = Field(default=None, description="The smallest value, or the first date")
    maximum: float | str | None = Field(default=None, description="The largest value, or the last date")
    allowed: list[str | int | float | bool] | None = Field(
        default=None, min_length=1, description="All values there are"
    )
    unique: bool = Field(default=False, description="Whether no value comes twice")
    description: str = Field(default="", description="What it holds, its unit in brackets")

    @model_validator(mode="after")
    def _values_are_of_the_type(self) -> Column:
        bounds: list[Any] = [one for one in (self.minimum, self.maximum) if one is not None]
        if bounds and self.type in ("text", "boolean"):
            raise ValueError(f"minimum and maximum are for numbers and dates, not for type: {self.type}")
        for value in self.allowed or []:
            if isinstance(value, bool) and self.type == "text":
                raise ValueError("quote what allowed has: without quotes YAML takes yes and no for true and false")
            if not _is_of(self.type, value):
                raise ValueError(f"allowed has {value!r}, which is no {self.type}; give values of the column's type")
        for bound in bounds:
            if not _is_of("date" if self.type == "date" else "number", bound):
                what = "a date in quotes, as '2024-12-31'" if self.type == "date" else "a number"
                raise ValueError(f"{bound!r} is no {self.type}; give {what}")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ValueError(f"minimum {bounds[0]} is above maximum {bounds[1]}; nothing is between them")
        return self


def _is_of(kind: str, value: object) -> bool:
    if kind in ("boolean", "text"):
        return isinstance(value, bool) == (kind == "boolean")
    if kind in ("integer", "number"):
        return isinstance(value, int | float if kind == "number" else int) and not isinstance(value, bool)
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


class Partitions(Part):
    """A model for each value of a column, or for each file."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,39}$",
        description="A column of the table, or what stands as {name} in the path of the files",
    )
    keys: list[str] | None = Field(
        default=None, min_length=1, description="Which. Not given: those that the column, or the files, have"
    )
    more: bool = Field(default=False, description="Whether others than `keys` may come, as new symbols")


# ------------------------------------------------------------------------------------------------ what is learned


class Target(Part):
    """What is learned."""

    column: str = Field(description="The column to predict")
    horizon: int | float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="For forecasts: how many rows ahead, in the order of `time`; below 1 a share of the rows, rounded "
        "up",
    )
    learn: Literal["value", "difference", "return"] = Field(
        default="value",
        description="For forecasts: the value itself, or its change, absolute or relative. Judged is always the value",
    )
    positive: str | int | bool | None = Field(
        default=None,
        description="Of two classes: which precision, recall and the like are about. Not given: the last in order, as "
        "1, true, yes",
    )

    @field_validator("horizon")
    @classmethod
    def _rows_or_a_share(cls, horizon: float | None) -> float | None:
        if isinstance(horizon, float) and horizon >= 1:
            raise ValueError("give a whole number of rows, or a share of them below 1")
        return horizon


class Split(Part):
    """Which rows a model is tested on."""

    kind: Literal["random", "stratified", "group", "chronological", "column"] = Field(
        description="stratified keeps the shares of the target's classes, group keeps rows of a group together, "
        "chronological tests on the last rows"
    )
    test_size: float = Field(default=0.25, gt=0.0, lt=1.0, description="The share of the rows that is tested on")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Of random, stratified and group")
    gap: int | None = Field(
        default=None, ge=0, description="Of chronological: rows left out before the test. Not given: the horizon, or 0"
    )
    column: str | None = Field(default=None, description="Of column: its values are train and test")

    @model_validator(mode="after")
    def _column_is_named(self) -> Split:
        if (self.kind == "column") != (self.column is not None):
            raise ValueError("kind: column needs `column`, and nothing else does")
        return self


class Object(Part):
    """A Python class and what it is made with; an argument may be such an object itself."""

    class_: str = Field(alias="class", pattern=r"^\.?[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$", description="Its import path")
    arguments: dict[str, Any] = Field(default={}, description="What it is made with, by name")


class CrossValidation(Part):
    """How the candidates of a search are scored, on training rows only."""

    kind: Literal["random", "stratified", "group", "chronological", "splitter"] = Field(
        description="As of the split; splitter is any of scikit-learn's"
    )
    folds: int = Field(default=5, ge=2, le=50, description="How many times each candidate is fitted and scored")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Of random, stratified and group")
    gap: int | None = Field(default=None, ge=0, description="Of chronological. Not given: the horizon, or 0")
    splitter: Object | None = Field(default=None, description="Of splitter: the class and its arguments")

    @model_validator(mode="after")
    def _splitter_is_named(self) -> CrossValidation:
        if (self.kind == "splitter") != (self.splitter is not None):
            raise ValueError("kind: splitter needs `splitter`, and nothing else does")
        return self


class Estimator(Part):
    """What learns: a class with fixed arguments, or a function that makes an unfitted estimator of the parameters."""

    class_: str | None = Field(
        default=None, alias="class", pattern=r"^\.?[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$", description="Its import path"
    )
    arguments: dict[str, Any] = Field(
        default={}, description="What the class is made with, by name; {class, arguments} is an object of its own"
    )
    function: str | None = Field(default=None, pattern=_FUNCTION, description=f"{_FUNCTION_SAID}")
    trusted: list[str] = Field(
        default=[],
        description="Types that a stored model may hold beside those of scikit-learn, XGBoost and LightGBM; "
        "`mlops check` lists them",
    )

    @model_validator(mode="after")
    def _either(self) -> Estimator:
        if (self.class_ is None) == (self.function is None):
            raise ValueError("give either class or function")
        if self.function is not None and self.arguments:
            raise ValueError("arguments belong to a class; a function has its own")
        return self


class Search(Part):
    """A search for better parameters."""

    presets: dict[str, dict[str, Any]] = Field(
        min_length=1,
        description="Grids by name, the first is the default: to each parameter its values, as a list or as a range "
        "{start, stop, step} that includes its stop",
    )
    scoring: str | None = Field(
        default=None, description="scikit-learn's name of the score, the larger the better. Not given: the first metric"
    )
    cv: CrossValidation = Field(description="How candidates are scored")
    schedule: MaybeSchedule = Field(
        default=None,
        description="When it is made, of one partition after the other, as cron (in UTC) or in more words. Not given: "
        "when somebody asks",
    )


class Baseline(Part):
    """What a model has to be better than to be worth anything."""

    kind: Literal["mean", "median", "prior", "stratified", "persistence", "seasonal_naive", "column", "function"] = (
        Field(
            description="mean, median (regression), prior, stratified (classification), persistence (as it is now), "
            "seasonal_naive (as it was a season ago), a column, or a function of training rows and rows to predict"
        )
    )
    season: int | None = Field(default=None, ge=1, description="Of seasonal_naive: its length in rows")
    column: str | None = Field(default=None, description="Of column: the one that holds a guess")
    function: str | None = Field(default=None, pattern=_FUNCTION, description=f"Of function: {_FUNCTION_SAID}")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Baseline:
        for name, kind in (("season", "seasonal_naive"), ("column", "column"), ("function", "function")):
            if (self.kind == kind) != (getattr(self, name) is not None):
                raise ValueError(f"kind: {kind} needs `{name}`, and nothing else does")
        return self


class Gate(Part):
    """Which new model takes the champion's place."""

    mode: Literal["enabled", "dry_run", "disabled"] = Field(
        default="enabled",
        description="enabled decides; dry_run says what it would decide and leaves the champion; disabled promotes "
        "every model that can be loaded",
    )
    metric: str | None = Field(default=None, description="What is compared. Not given: the first metric")
    margin: float = Field(
        default=0.0, ge=0.0, description="By how much the metric has to be better than the champion's, in its unit"
    )
    margin_in: Literal["unit", "share"] = Field(
        default="unit", description="Whether the margin is in the metric's unit, or a share of the champion's score"
    )
    confidence: float | None = Field(
        default=None,
        ge=0.5,
        lt=1.0,
        description="How sure it has to be that the difference isn't luck: a paired bootstrap over the test rows, in "
        "blocks where rows have an order. Not given: the difference itself is enough",
    )
    beat_baseline: bool = Field(default=True, description="Whether it has to be better than the baseline, too")
    allow_leaks: bool = Field(default=False, description="Whether it may have learned from rows that tell the answers")
    slices: list[str] = Field(
        default=[],
        description="Columns; for none of their values of which there are 20 rows to judge on may the metric become "
        "worse, as surely as `confidence` says if it is given",
    )


class Predictions(Part):
    """What is predicted with the champion."""

    data: Data | None = Field(
        default=None, description="The rows. Not given: those of the model's own table that have no target yet"
    )
    output: list[Literal["value", "class", "probabilities", "interval"]] = Field(
        min_length=1, description="Which columns: value (regression), class, probabilities; interval (regression)"
    )
    interval: float = Field(
        default=0.9, gt=0.0, lt=1.0, description="The share of truths that the interval is meant to hold"
    )
    interval_from: Literal["errors", "leaves"] = Field(
        default="errors",
        description="errors: from how wrong the model is on the test rows, of a forest its leaves widened or narrowed "
        "by that (split conformal prediction). leaves: a forest's leaves alone (quantile regression forest)",
    )
    catch_up: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Of forecasts: how many of the last rows to predict late, when their truth is known already, as "
        "after a week without a run; not those that have a prediction, or that the champion has learned from",
    )
    schedule: MaybeSchedule = Field(
        default=None,
        description="When, as cron (in UTC) or in more words; with a `calendar` once for each of its days, when it is "
        "over. Not given: when somebody asks",
    )
    on_arrival: bool = Field(
        default=True,
        description="Whether a file that arrives in the inbox for a partition is predicted with or, without a "
        "champion, gets its first model",
    )


# ----------------------------------------------------------------------------------------------------- the model


class Dataset(Part):
    """A table that several models share: where its rows come from, and what they have to be.

    The folder that holds it is where relative paths begin and where ``.module:function`` is looked for; its name is the
    table's.
    """

    description: str = Field(default="", description="What it is for, in a sentence")
    data: Data = Field(description="Where the rows come from")
    contract: dict[str, Column] | str = Field(
        min_length=1, description="What each column has to hold; or .module:NAME, a pandera schema"
    )
    key: list[str] = Field(default=[], description="The columns that identify a row")
    time: str | None = Field(default=None, description="The column that orders rows")
    group: str | None = Field(default=None, description="The column whose equal values belong together")
    calendar: Calendar | None = Field(
        default=None,
        description="The exchange on whose days there are rows, by its ISO 10383 code, as XNYS. Not given: on any",
    )
    partitions: Partitions | None = Field(default=None, description="A model for each ...; not given: one for all")

    _name: str = PrivateAttr(default="model")
    _folder: Path = PrivateAttr(default=Path())
    _dataset: Dataset | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        """What it is called: its folder's name."""
        return self._name

    @property
    def folder(self) -> Path:
        """Where the declaration is."""
        return self._folder

    @property
    def data_owner(self) -> str:
        """Whose table the rows are: the model's own, or a dataset's that it shares with others."""
        return self.name if self._dataset is None else self._dataset.name

    @property
    def data_description(self) -> str:
        """What the shared dataset says its rows are; empty if the rows are the model's own."""
        return "" if self._dataset is None else self._dataset.description

    def at(self, folder: Path, name: str | None = None, dataset: Dataset | None = None) -> Self:
        """Return the same declaration as it stands in a folder, its rows those of a dataset beside it if it says so."""
        placed = self.model_copy()
        placed._folder, placed._name, placed._dataset = folder, name or folder.name, dataset
        return placed


class Declaration(Dataset):
    """A model, declared.

    The folder that holds the declaration is where relative paths begin and where ``.module:function`` is looked for;
    its name is the model's.
    """

    task: Literal["regression", "classification"] = Field(description="What is predicted: a number or a class")
    features: list[str] | str = Field(
        min_length=1, description=f"Columns; or {_FUNCTION_SAID}, from the table to features, row by row"
    )
    leaks: Literal["refuse", "flag"] = Field(
        default="refuse",
        description="A function whose features look at rows that they mustn't: refuse it, or flag what it makes, which "
        "the gate then keeps out unless it is given allow_leaks",
    )
    target: Target = Field(description="What is learned")
    split: Split = Field(description="Which rows it is tested on")
    estimator: Estimator = Field(description="What learns")
    parameters: dict[str, ModelParameter] = Field(default={}, description="What people may change, by name")
    metrics: list[str] = Field(
        min_length=1,
        description="scikit-learn's names of scores (neg_... are shown positive), or .module:function of (truth, "
        "outputs): the larger the better, unless its `greater_is_better` is False",
    )
    baseline: Baseline = Field(description="What it has to be better than")
    search: Search | None = Field(default=None, description="A search for better parameters")
    gate: Gate = Field(default=Gate(), description="Which new model becomes the champion")
    predictions: Predictions | None = Field(default=None, description="What is predicted with the champion")
    plain_names: bool = Field(
        default=False,
        description="Whether its jobs, sensors and schedules go by their plain names, as build_model_pipeline, without "
        "its own in front: for the model that a command means where none is named. One of a project's",
    )

    def named(self, name: str) -> str:
        """Return what a job, a sensor or a schedule of the model's is called."""
        return name if self.plain_names else f"{self.name}_{name}"

    @field_validator("target", mode="before", json_schema_input_type=str | Target)
    @classmethod
    def _a_column_alone(cls, target: Any) -> Any:
        return {"column": target} if isinstance(target, str) else target

    @field_validator(
        "baseline",
        mode="before",
        json_schema_input_type=Literal["mean", "median", "prior", "stratified", "persistence"] | Baseline,
    )
    @classmethod
    def _a_kind_alone(cls, baseline: Any) -> Any:
        return {"kind": baseline} if isinstance(baseline, str) else baseline
