"""The code blocks of a document, and running them as their reader would: in order, in one shell."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_dagster_tests.contracts.servers import free_port
from mlops_dagster_tests.contracts.spark_archive import archive_options

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "text", "python", "yaml", "json", "sql")

# Lines that don't run, wherever they stand, and why. Whatever isn't named here or in test_docs.py runs.
LEFT_OUT = {
    r"make ": "CI's own business: .ci/run runs `make demo` and `make test`, the other targets have tests of their own",
    r"source \.venv/bin/activate": "the tests' own environment stands in for .venv",
    r"export .*(example\.com|s3://bucket|//host|=databricks_|/Volumes/|=\.\.\.|0123-456789)": "others' machines",
    r"databricks ": "Databricks' own command, and a workspace",
}


@dataclass(frozen=True)
class Server:
    """A command that keeps its terminal, where it listens for tests, and how a shell sees that it is ready."""

    options: str
    ready: str


# The documents say the ports that are usual; tests take others.
SERVERS = {
    "mlops ui": Server(
        "--port 3000 --mlflow-port 5000",
        "curl --silent http://127.0.0.1:3000/graphql --header 'Content-Type: application/graphql' "
        "--data '{workspaceOrError {... on Workspace {locationEntries {loadStatus}}}}' | grep --quiet '\"LOADED\"' "
        "&& curl --silent --fail --output /dev/null http://127.0.0.1:5000/health",
    ),
    "mlops serve": Server("--port 5001", "curl --silent --fail --output /dev/null http://127.0.0.1:5001/ping"),
    "mlflow server": Server("", "curl --silent --fail --output /dev/null http://127.0.0.1:5050/health"),
    "moto_server": Server("", "curl --silent --fail --output /dev/null http://127.0.0.1:5055/moto-api/data.json"),
    "SPARK_LOCAL_IP=127.0.0.1 spark-class org.apache.spark.deploy.master.Master": Server("", "grep --quiet ALIVE $log"),
    "SPARK_LOCAL_IP=127.0.0.1 spark-class org.apache.spark.deploy.worker.Worker": Server(
        "", "grep --quiet 'registered with master' $log"
    ),
}
PORTS = ("3000", "5000", "5001", "5050", "5055", "7077", "8090", "8091")

PRELUDE = """\
set -eo pipefail
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
in_another_terminal() {
  log=$(mktemp "$PWD/server.XXXX")
  eval "exec env $1" > "$log" 2>&1 &
  until eval "$2"; do
    kill -0 $! 2> /dev/null || { cat "$log"; exit 1; }
    sleep 0.5
  done
  only_for_this_machine $!
}
only_for_this_machine() {
  python -c "
import sys, psutil
server = psutil.Process($1)
heard = {one.laddr.ip for process in [server, *server.children(recursive=True)]
         for one in process.net_connections('tcp') if one.status == psutil.CONN_LISTEN}
sys.exit(bool(heard - {'127.0.0.1', '::1', '::ffff:127.0.0.1'}) and f'{server.cmdline()} listens on {heard}')"
}
"""


@dataclass(frozen=True)
class Block:
    """A block of code in a document."""

    language: str
    text: str
    line: int
    follows: bool  # nothing stands between it and the block before


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path) -> list[Block]:
    """Return all blocks of a document, those within lists included."""
    text, found, end = document.read_text(), [], 0
    for match in re.finditer(r"^( *)```(\S*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE):
        indent, language, content = match.groups()
        content = re.sub(f"^{indent}", "", content, flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(language, content, line, not text[end : match.start()].strip()))
        end = match.end()
    return found


def shell_lines(document: Path) -> list[str]:
    """Return the lines of a document's shell commands."""
    lines = [line for block in blocks(document) if block.language == "bash" for line in block.text.splitlines()]
    return [line.split(" # ")[0].strip() for line in lines if line.strip()]


def is_left_out(line: str, also: Mapping[str, str]) -> bool:
    return any(re.match(pattern, line) for pattern in (*LEFT_OUT, *also))


def checkout(folder: Path) -> Path:
    """Make what a reader has: the repository's files."""
    folder.mkdir()
    for file in ROOT.iterdir():
        if file.name.startswith(".") or file.name.endswith(".egg-info"):
            continue
        if file.is_dir():
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder / file.name)
    return folder


def run_as_story(document: Path, where: Path, left_out: Mapping[str, str]) -> int:
    """Run a document's shell commands in order, in one shell; compare what they print with what it shows.

    A block ```text right behind one of commands is what these print, where ``...`` stands for anything. If it says that
    something was refused (``ParameterError ...``), the commands have to fail.

    Parameters
    ----------
    document : Path
        Whose commands.
    where : Path
        The working directory, see :func:`checkout`.
    left_out : mapping of str to str
        The beginnings of more lines that don't run, as regular expressions, and why.

    Returns
    -------
    int
        How many blocks have run.

    Raises
    ------
    AssertionError
        If a command fails, or prints something else. With the block's line, and what was printed.
    """
    ports = {port: str(free_port()) for port in PORTS}
    its_blocks = blocks(document)
    script, ran = [PRELUDE], []
    for place, block in enumerate(its_blocks):
        lines = _runnable(block, left_out) if block.language == "bash" else []
        if not lines:
            continue
        shown = its_blocks[place + 1] if place + 1 < len(its_blocks) else None
        shown = shown if shown and shown.language == "text" and shown.follows else None
        ran.append((block, shown))
        script.append(f"printf '\\n@@ {len(ran) - 1}\\n'")
        commands = "\n".join(lines)
        if shown and re.search(r"^\w+(Error|Refused|NotFound)\b", shown.text, flags=re.MULTILINE):
            script.append(f"if (\n{commands}\n); then echo 'This should have failed.'; exit 1; fi")
        else:
            script.append(commands)
    if not ran:
        return 0
    file = where / "story.sh"
    file.write_text(_with_ports("\n".join(script), ports) + "\nprintf '\\n@@ end\\n'\n")
    log = where / "story.log"
    with log.open("w") as printing:  # a file, so that one can look while it runs
        done = subprocess.run(
            ["bash", file],
            cwd=where,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=printing,
            stderr=subprocess.STDOUT,
            check=False,
        )
    printed = re.split(r"^@@ (\d+|end)\n", log.read_text(), flags=re.MULTILINE)
    outputs = dict(zip(printed[1::2], printed[2::2], strict=True))
    for number, (block, shown) in enumerate(ran):
        output = outputs.get(str(number), "")
        at = f"{name_of(document)}, line {block.line}:\n{block.text}\nprinted:\n{output}"
        assert "end" in outputs or str(number + 1) in outputs, f"failed with status {done.returncode}: {at}"
        if shown:
            difference = what_differs(_with_ports(shown.text, ports), output)
            assert difference is None, f"{difference}\n{at}\nshown in the document:\n{shown.text}"
    return len(ran)


def run_python(document: Path, where: Path, given: str) -> int:
    """Run a document's Python blocks in order, in one process, after what the document takes for granted."""
    its_blocks = [block for block in blocks(document) if block.language == "python"]
    file = where / "story.py"
    file.write_text("\n".join([given, *(f"# line {block.line}\n{block.text}" for block in its_blocks)]))
    done = subprocess.run(
        [sys.executable, file], cwd=where, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name_of(document)}\n{file.read_text()}\n{done.stdout}\n{done.stderr}"
    return len(its_blocks)


def _runnable(block: Block, left_out: Mapping[str, str]) -> list[str]:
    lines = []
    for line in block.text.splitlines():
        command = line.split(" # ")[0].strip()
        if is_left_out(command, left_out):
            assert not command.endswith("\\"), f"only whole commands can be left out: {command}"
            continue
        for name, server in SERVERS.items():
            if command == name or command.startswith(f"{name} "):
                ready = server.ready.replace("$log", '"$log"')
                line = f"in_another_terminal {shlex.quote(f'{command} {server.options}')} {shlex.quote(ready)}"
        lines.append(line)
    return lines if any(line.strip() and not line.lstrip().startswith("#") for line in lines) else []


def _with_ports(text: str, ports: Mapping[str, str]) -> str:
    for port, free in ports.items():
        text = re.sub(rf"(127\.0\.0\.1:|port ){port}\b", rf"\g<1>{free}", text)
    return text


def _environment() -> dict[str, str]:
    """Return a reader's environment: nothing set of ours, .venv activated."""
    ours = ("MLOPS_", "MLFLOW_", "DAGSTER_", "DATABRICKS_", "SPARK_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    plain = {"COLUMNS": "100", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    plain["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes more, for what isn't used here
    return {**kept, **plain, **archive_options(), "PATH": path}


def what_differs(shown: str, printed: str, *, share: float = 2e-3) -> str | None:
    """Say how what was printed differs from what a document shows; None if it doesn't.

    ``...`` stands for anything, whitespace counts once, and numbers with decimals may differ by a small share, since
    other versions of scikit-learn break ties otherwise.

    Examples
    --------
    >>> what_differs("rmse 12.50 ... done", "rmse   12.501  in 3 s  done") is None
    True
    >>> what_differs("rmse 12.50", "rmse 13.10")
    'it prints 13.10 where the document shows 12.50'
    """
    number = r"[+-]?\d[\d,]*\.\d+(?:e[+-]?\d+)?"
    expected = re.findall(number, shown)
    pattern = ""
    for part in re.split(rf"(\s*\.\.\.\s*|{number}|\s+)", shown.strip()):
        if part.strip() == "...":
            pattern += ".*?"
        elif re.fullmatch(number, part):
            pattern += f"({number})"
        else:
            pattern += r"\s+" if part.isspace() else re.escape(part)
    found = re.fullmatch(rf"\s*{pattern}\s*", printed, flags=re.DOTALL)
    if found is None:
        return "it prints something else"
    for is_shown, is_printed in zip(expected, found.groups(), strict=True):
        values = [float(text.replace(",", "")) for text in (is_shown, is_printed)]
        # Where few digits are shown, the last of them may differ by one.
        last_digit = 10.0 ** -len(is_shown.partition(".")[2].partition("e")[0])
        if not math.isclose(*values, rel_tol=share, abs_tol=1.01 * last_digit if "e" not in is_shown else 0):
            return f"it prints {is_printed} where the document shows {is_shown}"
    return None
