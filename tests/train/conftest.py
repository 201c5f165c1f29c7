"""What the tests of meta-training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from click.testing import CliRunner, Result

from mlrs_cli.train import train
from mlrs_train import tasks
from tests.train.toys import blobs, quadratic


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as trainings do, and leave the number as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def toy_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter the toy tasks in the registry."""
    monkeypatch.setitem(tasks.TASKS, "blobs", blobs)
    monkeypatch.setitem(tasks.TASKS, "shallow", quadratic(0.02))


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Return a function that runs `mlrs train` with these arguments."""
    return lambda *arguments: CliRunner().invoke(train, [str(argument) for argument in arguments])
