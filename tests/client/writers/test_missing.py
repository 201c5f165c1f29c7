"""What the writers say where a tracker's library, or its run, is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlrs import writers
from mlrs.errors import InvalidArgumentError, UsageError


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says what to install."""
    monkeypatch.setattr(sys, "path", [])
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    arguments = [tmp_path] if name == "tensorboard" else []
    with pytest.raises(UsageError, match=f"pip install {name}"):
        getattr(writers, name)(*arguments)


def test_a_writer_of_another_kind_is_refused() -> None:
    """What is neither a folder nor a writer is refused by name."""
    with pytest.raises(InvalidArgumentError, match="must be a SummaryWriter or a folder") as raised:
        writers.tensorboard(3)  # type: ignore[arg-type]
    assert raised.value.field == "writer"
