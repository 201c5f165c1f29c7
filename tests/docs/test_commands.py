"""The lines of a shell that pages and scripts show: `mlrs ...` runs, the rest is checked as far as it can be.

`commands.py` says what is not run, and why.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import pytest

from mlrs_server.errors import AdvisorError
from tests.docs.blocks import PAGES, ROOT, Block, in_language
from tests.docs.commands import NOT_RUN, PARSED, carry_out, check_mention, check_names
from tests.docs.conftest import Stage

SCRIPTS = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "performance").rglob("*.py")])


@pytest.fixture(autouse=True)
def surroundings(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in a folder with the repository's own, with the daemon and the store as the default ones."""
    for folder in ("deploy", "docs", "examples", "performance"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    variables = {"MLRS_TARGET": stage.address, "MLRS_DATA_DIR": str(stage.folder / "lib")}
    with mock.patch.dict(os.environ, variables):
        yield


@pytest.mark.parametrize("block", in_language("console", ""), ids=str)
def test_commands(block: Block, stage: Stage) -> None:
    """Every command of a block does what the page shows of it; what follows it there is what it prints."""
    printed = ""
    for number, line in block.lines:
        if block.language == "console" and not line.startswith("$ "):
            assert line in printed.splitlines(), f"{block.page}:{number}"
        else:
            printed = carry_out(stage.localized(line.removeprefix("$ ")))


def commands_of(script: Path) -> list[str]:
    """Return the commands in the docstring of a script."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return re.findall(r"^ *((?:mlrs|python|torchrun) .*)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if commands_of(path)], ids=lambda path: path.name
)
def test_commands_of_scripts(script: Path, stage: Stage) -> None:
    """The commands in the docstring of an example, or of a benchmark, are taken as they are written."""
    for line in commands_of(script):
        carry_out(stage.localized(line))


MENTIONED = sorted(
    {
        mention
        for path in PAGES
        if path.name != "CHANGELOG.md"  # which tells of what there was
        for mention in re.findall(r"(?<!`)`(mlrs [^`]+)`(?!`)", path.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize("mention", MENTIONED, ids=lambda mention: mention[:40])
def test_commands_in_sentences(mention: str) -> None:
    """A command of `mlrs` that a page's prose mentions is there, and has the options that it names."""
    check_mention(mention)


def test_every_exception_is_needed() -> None:
    """Each command that is said not to run is on a page, or in a script."""
    blocks = [line for block in in_language("console", "") for _, line in block.lines]
    lines = "\n".join([*blocks, *(line for script in SCRIPTS for line in commands_of(script))])
    unused = [name for name in NOT_RUN if not re.search(rf"(^|[\s/]){name} ", lines, re.MULTILINE)]
    unused += [name for name in PARSED if f"mlrs {name} " not in lines]
    assert unused == []


@pytest.mark.parametrize(
    "line",
    ["mlrs runs lists", "mlrs runs list --no-such", "mlrs models diff a", "mlrs serve --listen nowhere"],
)
def test_wrong_commands(line: str) -> None:
    """A command that there is not, or that does not take what it is given, is found."""
    with pytest.raises((click.ClickException, AdvisorError, AssertionError)):
        carry_out(line)


@pytest.mark.parametrize("mention", ["mlrs run", "mlrs runs lists", "mlrs serve --lisen ADDRESS"])
def test_wrong_mentions(mention: str) -> None:
    """A mention of a command or an option that there is not is found."""
    with pytest.raises(AssertionError):
        check_mention(mention)


@pytest.mark.parametrize("word", ["deploy/no-such-file", "mlrs[no-such-extra]", "'mlrs[server,no]'"])
def test_wrong_names(word: str) -> None:
    """A file that there is not, or an extra, is found in any command."""
    with pytest.raises(AssertionError):
        check_names([word])
