"""Versions of code and commits, in packages and repositories made for the test."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from mlops_dagster.stack import provenance

CODE = '''
"""A module."""

LIMIT = 10


def double(x: int) -> int:
    """Double it."""
    return 2 * x  # twice
'''


@pytest.fixture
def package(tmp_path):
    """A package that has only provenance.py and one module; the returned module believes to be part of it."""
    stack = tmp_path / "checkout" / "package" / "stack"
    stack.mkdir(parents=True)
    shutil.copy(provenance.__file__, stack)
    (stack.parent / "model.py").write_text(CODE)
    spec = importlib.util.spec_from_file_location("provenance_of_the_test", stack / "provenance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(package, *arguments):
    checkout = package.PACKAGE.parent
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(checkout), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def edit(package, old, new):
    file = package.PACKAGE / "model.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# ------------------------------------------------------------------------------------------------------ code version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# twice", "# two times"),
        ('"""Double it."""', '"""Return it twice."""'),
        ('"""Double it."""\n', ""),
        ('"""A module."""', '"""The same module."""'),
        ("LIMIT = 10", "LIMIT = (\n    10\n)"),
        ("LIMIT = 10", 'LIMIT = 10\n"""How much is too much."""'),
    ],
)
def test_what_does_nothing_changes_nothing(package, old, new):
    before = package.code_version("model.py")
    edit(package, old, new)
    assert package.code_version("model.py") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 10", "LIMIT = 11"),
        ("LIMIT = 10", "LIMIT = 10.0"),
        ("LIMIT = 10", "LIMIT = None"),
        ("2 * x", "x * 2"),
        ("def double", "def twice"),
        ("return 2", "yield 2"),
        ("-> int", "-> float"),
    ],
)
def test_what_does_something_changes_the_version(package, old, new):
    before = package.code_version("model.py")
    edit(package, old, new)
    assert package.code_version("model.py") != before


def test_folders_count_with_all_their_modules(package):
    before = package.code_version("stack")
    (package.PACKAGE / "stack" / "new.py").write_text("")
    assert package.code_version("stack") != before


def test_libraries_count_when_asked(package):
    versions = {package.code_version("model.py", libraries=given) for given in ((), ("numpy",), ("numpy", "mlflow"))}
    assert len(versions) == 3


def test_a_file_that_doesnt_exist_is_an_error(package):
    with pytest.raises(FileNotFoundError, match=r"modle\.py"):
        package.code_version("modle.py")


def test_the_version_is_the_same_for_every_python():
    """These digits hold for 3.10 to 3.13, whose own `ast.dump` and `ast.unparse` differ."""
    given = "match x:\n    case {'a': [1, *_]} if x: print(f'{x!r:>{3}}', b'', ..., 1j)"
    shape = provenance._shape(provenance.ast.parse(given))
    assert provenance.hashlib.sha256(repr(shape).encode()).hexdigest()[:12] == "5527632367cf"


# -------------------------------------------------------------------------------------------------------- git commit


def test_the_commit_of_the_checkout(package):
    git(package, "init", "-q")
    git(package, "add", ".")
    assert package.git_commit() is None  # nothing is committed yet
    git(package, "commit", "-q", "-m", "x")
    commit = git(package, "rev-parse", "HEAD")
    assert package.git_commit() == commit
    git(package, "tag", "v1.0")
    (Path(package.PACKAGE) / "notes.txt").write_text("not tracked, doesn't count")
    assert package.git_commit() == commit
    edit(package, "LIMIT = 10", "LIMIT = 11")
    assert package.git_commit() == f"{commit}-dirty"


def test_somebody_elses_repository_is_not_ours(package):
    """A virtual environment often lies in the checkout of the project that uses us."""
    git(package, "init", "-q")
    (package.PACKAGE.parent / "theirs.txt").touch()
    git(package, "add", "theirs.txt")
    git(package, "commit", "-q", "-m", "x")
    assert package.git_commit() is None


def test_no_repository(package):
    assert package.git_commit() is None


def test_no_git(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert package.git_commit() is None


def test_the_repository_of_a_git_hook_doesnt_confuse_it(package, monkeypatch, tmp_path):
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "x")
    commit = git(package, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert package.git_commit() == commit


# ------------------------------------------------------------------------------------------------------ links to code


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://github.com/me/it.git", "https://github.com/me/it/blob/"),
        ("https://me:s3cret@github.com/me/it", "https://github.com/me/it/blob/"),
        ("git@github.com:me/it.git", "https://github.com/me/it/blob/"),
        ("ssh://git@gitlab.example.com:2222/team/sub/it.git", "https://gitlab.example.com/team/sub/it/-/blob/"),
        ("https://example.com/me/it.git", None),
        ("../it", None),
    ],
)
def test_code_is_linked_where_it_was_pushed_to(package, remote, url):
    git(package, "init", "-q", "-b", "main")
    git(package, "add", ".")
    git(package, "commit", "-qm", "one")
    assert package.code_url() is None  # pushed nowhere yet
    pushed = git(package, "rev-parse", "HEAD")
    git(package, "remote", "add", "origin", remote)
    git(package, "update-ref", "refs/remotes/origin/main", pushed)
    git(package, "branch", "-q", "--set-upstream-to=origin/main")
    git(package, "commit", "-q", "--allow-empty", "-m", "two")  # which nobody else can see
    assert package.code_url() == (url and f"{url}{pushed}/package")


def test_code_outside_of_a_checkout_is_not_linked(package):
    assert package.code_url() is None
