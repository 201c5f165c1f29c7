"""What is read back from the event files of TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import mlrs
from mlrs import writers
from tests.support.frameworks import framework

framework("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

LOSSES = [2.0, 1.0, math.nan, -1e300, 0.5]


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of the event files of a folder, each with its step."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def check(found: dict[str, list[tuple[int, float]]], lrs: list[float]) -> None:
    """Check that what was found is every step, in the single precision of TensorBoard."""
    assert found.keys() == {"mlrs/learning_rate", "mlrs/loss"}
    assert found["mlrs/learning_rate"] == list(enumerate(np.float32(lrs).tolist()))
    assert repr(found["mlrs/loss"]) == repr([(0, 2.0), (1, 1.0), (2, math.nan), (3, -math.inf), (4, 0.5)])


def test_a_folder(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Given a folder, the event file there holds every step once the run is finished."""
    run = advisor.run("task", on_advice=writers.tensorboard(tmp_path / "logs"))
    lrs = [run.next_lr(step, loss) for step, loss in enumerate(LOSSES)]
    run.finish()
    check(read(tmp_path / "logs"), lrs)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_a_writer_of_the_user(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Given a `SummaryWriter`, steps stand beside what the user writes, and the writer stays open."""
    framework("torch")
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        run = advisor.run("task", on_advice=writers.tensorboard(writer))
        lrs = [run.next_lr(step, loss) for step, loss in enumerate(LOSSES)]
        run.finish()
        writer.add_scalar("own", 1.0, 7)
    found = read(tmp_path)
    assert found.pop("own") == [(7, 1.0)]
    assert found["mlrs/learning_rate"] == list(enumerate(np.float32(lrs).tolist()))
    assert [step for step, _ in found["mlrs/loss"]] == [0, 1, 2, 3, 4]
