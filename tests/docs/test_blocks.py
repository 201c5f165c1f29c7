"""The blocks of Python of the pages, and of the client's docstrings, run as they stand.

Where they talk to a daemon there is one. A few names take the place of the pages' in a block's text:
addresses, folders, and the backend of `torch.distributed`. Loops of a thousand steps and more take the first
few: `range` is a name in the block's namespace. The rest of what a block finds there, and does not make
itself, is in `yours.py`.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt

import mlrs
import mlrs.aio
from mlrs.api import shared
from tests.docs import yours
from tests.docs.blocks import BLOCKS, DOCSTRINGS, ROOT, Block, in_language
from tests.docs.conftest import Stage

LARGE = {"accelerate", "deepspeed", "jax", "keras", "lightgbm", "optax", "timm", "transformers", "xgboost"}
"""Frameworks that may be missing here: blocks that import them are run where they are installed."""
CHECKED = {"python", "diff", "console", ""}
"""The languages of which a test knows what blocks in them are to do; those without one hold commands."""


@pytest.fixture
def connect(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], mlrs.Advisor]]:
    """Return what connects to the daemon; all advisors, those of blocks too, are patient, and closed at last.

    Those that a block leaves open are asked for the models, which shows that there is a daemon.
    """
    opened: list[mlrs.Advisor] = []
    really = mlrs.connect

    def connected(*arguments: Any, **options: Any) -> mlrs.Advisor:
        opened.append(really(*arguments, **({"timeout_s": 30.0} | options)))
        return opened[-1]

    monkeypatch.setenv("MLRS_TARGET", stage.address)
    monkeypatch.setattr(mlrs, "connect", connected)
    monkeypatch.setattr(shared, "connect", connected)
    monkeypatch.setattr(shared, "_shared", shared._Shared())
    monkeypatch.setattr(mlrs.aio, "connect", partial(mlrs.aio.connect, timeout_s=30.0))
    yield lambda: connected(stage.address)
    for advisor in opened:
        try:
            assert next(advisor.models())
        except mlrs.errors.ClosedError:
            pass
        finally:
            advisor.close()


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have scripts find the repository's root as their folder, an argument, and a job of one rank."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["script.py", str(tmp_path / "picture.png")])
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    yield
    plt.close("all")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run(block: Block, code: str, names: yours.Names) -> None:
    """Run the code of a block; what it raises names the page and the line."""
    await_ = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled = compile("\n" * (block.line - 1) + code, str(block.path), "exec", await_, dont_inherit=True)
    if (coroutine := eval(compiled, names)) is not None:  # noqa: S307 # that is what this is for
        asyncio.run(coroutine)


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("block", [*in_language("python"), *DOCSTRINGS], ids=str)
def test_python(
    block: Block,
    stage: Stage,
    connect: Callable[[], mlrs.Advisor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A block of Python runs, what it makes works, and the client warns of nothing."""
    if missing := block.missing() & LARGE:
        pytest.skip(f"not installed: {', '.join(missing)}")
    names = yours.names_of(block.page, connect)
    for step in range(yours.steps_of(block)):
        names |= {"step": step}
        run(block, stage.localized(block.text), names)
    yours.try_out(names)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("block", in_language("diff"), ids=str)
def test_diffs(
    block: Block,
    stage: Stage,
    connect: Callable[[], mlrs.Advisor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The code before a diff runs, and so does the code after it."""
    for code in block.before_and_after():
        run(block, stage.localized(code), yours.names_of(block.page, connect))
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_every_block_is_checked() -> None:
    """No block is in a language that no test here knows, and the pages have blocks in all of these."""
    assert {block.language for block in BLOCKS} == CHECKED
    modules = ("__init__.py", "aio.py", "meta.py", "torch/__init__.py")
    assert {f"client/mlrs/{module}" for module in modules} <= {block.page for block in DOCSTRINGS}
