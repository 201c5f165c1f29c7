"""The search at the start of a training, on the trainer's own batches and steps."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

framework("transformers")

import torch  # noqa: E402 # after the framework that may be missing
from torch.utils.data import IterableDataset  # noqa: E402
from transformers import Trainer  # noqa: E402

import mlrs  # noqa: E402
from mlrs.transformers import advised  # noqa: E402
from tests.client.fake_daemon import TRIED, FakeDaemon  # noqa: E402
from tests.client.transformers.trainings import Tokens, arguments, model, weights  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # those of Transformers and Accelerate are not ours


class Watched(Trainer):
    """A trainer that keeps what it was before its first step, and counts as TRL's trainers do."""

    before: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metrics = {"train": defaultdict(list)}
        self.calls = 0

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Note what it sees."""
        if self.before is None:
            self.rows = inputs["input_ids"].tolist()
            self.before = [weights(self), self.rows, torch.get_rng_state().tolist()]
        self.calls += 1
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.metrics["train"]["loss"].append(loss.item())
        return loss


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 2}, {"per_device_train_batch_size": 8}]
)
def test_it_leaves_no_trace(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """A training with a search sees the batches, weights and random numbers of one without.

    The learning rates of the two are the same here, and so are all weights at the end, also where the search
    has read all batches of an epoch.
    """
    seen = []
    for search in (True, False):
        trainer = Watched(
            model(), arguments(tmp_path, num_train_epochs=4, **settings), train_dataset=Tokens()
        )
        trainer.model.eval()
        advised(
            trainer, "task", advisor=advisor, search=search, memory=False, id=f"run-{search}", horizon=1000
        )
        Watched.before = None
        trainer.train()
        record = daemon.runs[f"run-{search}"]
        steps = 4 * 12 * 4 // trainer.args.train_batch_size
        assert trainer.calls == len(trainer.metrics["train"]["loss"]) == steps
        seen.append([record.losses, weights(trainer), trainer.metrics, trainer.state.log_history[0]["loss"]])
    (search,) = daemon.runs["run-True"].searches
    assert len(search.results) == len(TRIED)
    assert seen[0] == seen[1]


def test_where_it_cannot_be_made(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the batches cannot be read twice, one warning says so, and the training is advised."""

    class Rows(IterableDataset[Any]):
        def __iter__(self) -> Any:
            rows = Tokens()
            return iter([rows[index] for index in range(len(rows))])

    trainer = Trainer(model(), arguments(tmp_path, max_steps=5), train_dataset=Rows())
    advised(trainer, "task", advisor=advisor, memory=False, id="a", horizon=1000)
    with caplog.at_level(logging.WARNING, "mlrs"):
        trainer.train()
    assert ["IterableDataset" in record.message for record in caplog.records] == [True]
    assert len(daemon.runs["a"].losses) == 5
