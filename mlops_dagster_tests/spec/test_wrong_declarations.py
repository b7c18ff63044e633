"""Wrong declarations are refused offline, each with file, line, what is wrong, and the cure."""

import textwrap

import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.spec.reading import read_declaration

RIGHT = """\
type: mlops_dagster.SklearnModel
attributes:
  task: classification
  data:
    files: {path: customers.csv}
  contract:
    customer: {type: integer, unique: true}
    since: {type: date}
    age: {type: number, nullable: true, minimum: 0, maximum: 120}
    plan: {type: text, allowed: [basic, pro]}
    churned: {type: integer, allowed: [0, 1]}
  key: [customer]
  time: since
  group: plan
  features: [age, plan]
  target: churned
  split: {kind: stratified, test_size: 0.25, seed: 0}
  estimator:
    class: sklearn.ensemble.RandomForestClassifier
    arguments: {random_state: 0}
  parameters:
    max_depth: {default: 8, minimum: 1, maximum: 100}
  metrics: [roc_auc, accuracy]
  baseline: prior
  search:
    presets:
      small: {max_depth: [4, 8]}
    cv: {kind: stratified, folds: 5}
  gate: {metric: roc_auc, slices: [plan]}
  predictions:
    output: [class, probabilities]
    schedule: 0 6 * * *
"""

# What is replaced, by what, in which line the message has to say that something is wrong, and what it has to say.
WRONG = [
    ("type: mlops_dagster.SklearnModel", "type: other.Thing", 1, "begins with type: mlops_dagster.SklearnModel"),
    ("attributes:\n", "settings:\n", 2, "settings: it belongs below attributes"),
    ("  task: classification\n", "", 2, "task is missing; add it."),
    ("task: classification", "task: clasification", 3, "Did you mean classification?"),
    ("task: classification", "task: 3", 3, "task=3 (int)"),
    ("  task:", "  tasks:", 3, "did you mean task?"),
    ("files: {path: customers.csv}", "files: {}", 5, "data.files.path is missing"),
    ("files: {path: customers.csv}", "files: {path: 3}", 5, "quote it"),
    ("files: {path: customers.csv}", "files: {path: a.csv, seperator: ';'}", 5, "did you mean data.files.separator?"),
    ("files: {path: customers.csv}", "files: {path: a.csv, separator: ';;'}", 5, "at most 1 character"),
    ("files: {path: customers.csv}", "files: {path: a.csv}\n    table: a.b.c", 4, "give exactly one of files, sql"),
    ("    files: {path: customers.csv}", "    function: load", 5, "data.function='load' (str)"),
    (
        "    files: {path: customers.csv}",
        "    sql: {url: 'postgresql://me:pw@host/x', query: select}",
        5,
        "data.sql.url",
    ),
    ("age: {type: number,", "age: {type: float,", 9, "contract.age.type='float' (str): give 'integer', 'number'"),
    ("age: {type: number,", "age: {typ: number,", 9, "did you mean contract.age.type?"),
    ("nullable: true", "nullable: maybe", 9, "contract.age.nullable='maybe'"),
    ("allowed: [basic, pro]", "allowed: []", 10, "contract.plan.allowed"),
    ("allowed: [basic, pro]", "minimum: 1", 10, "minimum and maximum are for numbers and dates, not for type: text"),
    ("allowed: [basic, pro]", "allowed: [yes, no]", 10, "quote what allowed has"),
    ("allowed: [0, 1]", "allowed: [0, yes]", 11, "allowed has True, which is no integer"),
    ("minimum: 0, maximum", "minimum: 130, maximum", 9, "minimum 130.0 is above maximum 120.0"),
    ("since: {type: date}", "since: {type: date, minimum: '1.1.24'}", 8, "'1.1.24' is no date; give a date in quotes"),
    ("key: [customer]", "key: customer", 12, "key='customer' (str)"),
    ("key: [customer]", "key: [custmer]", 12, "did you mean customer?"),
    ("time: since", "time: sinse", 13, "did you mean since?"),
    ("group: plan", "group: nothing_like_it", 14, "there are customer, since, age, plan, churned."),
    ("features: [age, plan]", "features: [age, plna]", 15, "did you mean plan?"),
    ("features: [age, plan]", "features: [age, churned]", 15, "churned is the target"),
    ("features: [age, plan]", "features: []", 15, "features"),
    ("target: churned", "target: churnd", 16, "did you mean churned?"),
    ("target: churned", "target: {column: churned, horizon: 2}", 16, "forecasts of classes"),
    ("target: churned", "target: {column: churned, learn: return}", 16, "give target.horizon, too"),
    ("test_size: 0.25", "test_size: 1.5", 17, "less than 1"),
    ("test_size: 0.25", "test_size: .nan", 17, "split.test_size"),
    ("kind: stratified, test", "kind: stratifed, test", 17, "Did you mean stratified?"),
    ("kind: stratified, test", "kind: column, test", 17, "kind: column needs `column`"),
    ("    class: sklearn", "    function: .model:make\n    class: sklearn", 18, "give either class or function"),
    ("class: sklearn.ensemble.RandomForestClassifier", "class: RandomForestClassifier", 19, "estimator.class"),
    ("max_depth: {default: 8,", "max_depth: {", 22, "parameters.max_depth.default is missing"),
    ("max_depth: {default: 8,", "Max-Depth: {default: 8,", 22, "give small letters"),
    (
        "max_depth: {default: 8,",
        "max_depth: {default: deep,",
        22,
        "minimum is for a number; this parameter's type is text",
    ),
    ("minimum: 1, maximum: 100}", "choices: [deep]}", 22, "choices is for a text; this parameter's type is integer"),
    ("metrics: [roc_auc, accuracy]", "metrics: []", 23, "metrics"),
    ("baseline: prior", "baseline: mean", 24, "isn't for task classification"),
    ("baseline: prior", "baseline: {kind: seasonal_naive}", 24, "kind: seasonal_naive needs `season`"),
    ("small: {max_depth", "small: {max_depht", 27, "did you mean max_depth?"),
    ("    presets:\n      small: {max_depth: [4, 8]}\n", "", 25, "search.presets is missing"),
    ("cv: {kind: stratified, folds: 5}", "cv: {kind: stratified, folds: 1}", 28, "search.cv.folds=1 (int)"),
    ("cv: {kind: stratified, folds: 5}", "cv: {kind: splitter}", 28, "kind: splitter needs `splitter`"),
    ("gate: {metric: roc_auc,", "gate: {metric: f1,", 29, "isn't among metrics: roc_auc, accuracy."),
    ("slices: [plan]", "slices: [plans]", 29, "did you mean plan?"),
    ("slices: [plan]", "mode: dry-run", 29, "Did you mean dry_run?"),
    ("output: [class, probabilities]", "output: [value]", 31, "value isn't for task classification"),
    ("schedule: 0 6 * * *", "schedule: 0 25 * * *", 32, "predictions.schedule.cron='0 25 * * *' (str): the hour '25'"),
    ("schedule: 0 6 * * *", "schedule: {cron: 0 6 * * *, timezone: Europe/Londn}", 32, "did you mean Europe/London?"),
    ("schedule: 0 6 * * *", "schedule: {corn: 0 6 * * *}", 32, "did you mean predictions.schedule.cron?"),
    ("group: plan", "group: plan\n  calendar: NYSE", 15, "there is no such exchange; give an ISO 10383 code"),
    ("  task: classification", "  task: classification\n  task: regression", None, "task is given twice (line 4)"),
    ("  task: classification", "  task: [classification", None, "it isn't YAML in line"),
    ("  task: classification", "  task: !!python/object/apply:os.system [id]", None, "it isn't YAML in line 3"),
    ("  task: classification", "  task: &a [*a]", None, "aliases"),
]


def write(folder, text):
    (folder / "churn").mkdir(exist_ok=True)
    (folder / "churn" / "defs.yaml").write_text(text)
    return folder / "churn" / "defs.yaml"


def test_the_right_one_is_read(tmp_path):
    found = read_declaration(write(tmp_path, RIGHT))

    assert (found.name, found.folder) == ("churn", tmp_path / "churn")
    assert found.target.column == "churned"
    assert found.baseline.kind == "prior"
    assert model_names(tmp_path) == ["churn"]


@pytest.mark.parametrize(("old", "new", "line", "said"), WRONG, ids=[f"{one[3][:40]}" for one in WRONG])
def test_a_wrong_one_is_refused(tmp_path, old, new, line, said):
    assert RIGHT.count(old) == 1, "the test replaces one thing"
    file = write(tmp_path, RIGHT.replace(old, new))

    with pytest.raises(ParameterError) as refused:
        read_declaration(file)

    text = str(refused.value)
    assert said in text
    where = f"{file}:" if line is None else f"{file}:{line}: "
    assert any(sentence.startswith(where) and said in sentence for sentence in text.splitlines()), text


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("time", "split.kind='chronological' needs `time`: name the column."),
        ("group", "split.kind='group' needs `group`: name the column."),
    ],
)
def test_a_split_needs_its_column(tmp_path, removed, said):
    kind = {"time": "chronological", "group": "group"}[removed]
    text = RIGHT.replace("split: {kind: stratified", f"split: {{kind: {kind}")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(f"  {removed}:"))

    with pytest.raises(ParameterError) as refused:
        read_declaration(write(tmp_path, text))

    assert said in str(refused.value)


def test_a_bomb_stays_small(tmp_path):
    bomb = textwrap.dedent("""\
        a: &a [x, x, x, x, x, x, x, x, x]
        b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
        c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
        d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]
        e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]
        type: mlops_dagster.SklearnModel
        attributes: *e
        """)

    with pytest.raises(ParameterError, match="its aliases stand for more than"):
        read_declaration(write(tmp_path, bomb))


def test_a_name_that_isnt_there_gets_the_nearest(tmp_path):
    write(tmp_path, RIGHT)

    with pytest.raises(ParameterError, match=r"model='chrun' .* did you mean churn\?"):
        find_model("chrun", tmp_path)


def test_a_folder_with_a_bad_name_is_refused(tmp_path):
    (tmp_path / "My Model").mkdir()
    (tmp_path / "My Model" / "defs.yaml").write_text(RIGHT)

    with pytest.raises(ParameterError, match=r"name='My Model' .*small letters"):
        read_declaration(tmp_path / "My Model" / "defs.yaml")
