"""The blocks of a framework's page and of its adapter's docstrings, for the test that runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mlrs.api import shared
from tests.docs.blocks import ROOT, Block, blocks_of, docstring_blocks_of


def framework_blocks(name: str) -> list[Block]:
    """Return the blocks of Python of a framework."""
    page = ROOT / "docs" / "guides" / "frameworks" / f"{name}.md"
    modules = sorted((ROOT / "client" / "mlrs" / name).rglob("*.py"))
    docstrings = [block for module in modules for block in docstring_blocks_of(module)]
    return [*(block for block in blocks_of(page) if block.language == "python"), *docstrings]


@contextmanager
def served(target: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have `mlrs.run` connect to a daemon."""
    monkeypatch.setenv("MLRS_TARGET", target)
    monkeypatch.setattr(shared, "_shared", shared._Shared())
    yield
    shared._shared.advisor(may_be_away=False).close()


def run_block(block: Block, names: dict[str, Any]) -> None:
    """Run a block; what it raises names the page and the line."""
    exec(compile("\n" * (block.line - 1) + block.text, str(block.path), "exec"), names)  # noqa: S102  # so it is meant
