"""The documents don't lie: their commands run, their links and pictures exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_dagster.instance import prepare_instance
from mlops_dagster.stack.deployment import load_deployment

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def shell_lines(document: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", document.read_text(), flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_links_and_pictures_exist(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_every_make_target_exists(document):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"`?\bmake ([a-z-]+)\b", " ".join([*shell_lines(document), *re.findall(r"`make [^`]+`", document.read_text())])
    ):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_ci_runs_the_two_commands_of_the_readme():
    asked = [line for line in shell_lines(ROOT / "README.md") if line.startswith("make ")]
    assert asked == ["make demo", "make test"]
    assert [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line in asked] == asked


@pytest.mark.slow
@pytest.mark.parametrize("document", [file for file in DOCUMENTS if shell_lines(file)], ids=lambda file: file.name)
def test_the_commands_run_as_they_are_written(document, home, tmp_path, price_rows):
    prepare_instance(load_deployment())
    (tmp_path / "inbox").mkdir()
    price_rows.to_csv(tmp_path / "inbox" / "ACME.csv", index=False)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = 0
    for line in shell_lines(document):
        # make is CI's own business; exports show other people's addresses, or the state folder that this test has.
        if line.startswith(("make ", "export ", "source ", "mlops ui", ".venv/bin/python ")):
            continue
        where = ROOT if line.startswith(("dg ", "dagster ")) else tmp_path
        done = subprocess.run(line, shell=True, cwd=where, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran or document.name != "README.md"
