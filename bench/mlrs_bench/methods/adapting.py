"""Networks in meta mode: served by a daemon, they go on learning from gradients of validation losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import mlrs_client
from mlrs_bench.methods.method import Training, set_lr
from mlrs_bench.methods.served import TIMEOUT_S, opened
from mlrs_bench.models import ADVISED_META, PAPER_META, ModelFile
from mlrs_bench.task import Examples
from mlrs_client.torch import MetaStep

AHEAD = {ADVISED_META: 0.5, PAPER_META: 1.0}
"""Where along the step the validation gradient is taken: where the client does by default; and the paper."""
APART = 1 << 32
"""What is added to a training's seed for the order of its validation examples."""


def adapted(model: ModelFile) -> Callable[[Training], Adapting]:
    """Return what builds the control by a network of the daemon's that goes on learning."""
    return lambda training: Adapting(training, AHEAD[model.method], model=model.served_name, meta=True)


def draw_validation(training: Training) -> Iterator[Examples]:
    """Yield batches of validation examples, as large as those of the training, all before any comes again."""
    examples, generator = training.valid, torch.Generator().manual_seed(training.seed + APART)
    size = min(training.task.batch_size, len(examples))
    while True:
        order = torch.randperm(len(examples), generator=generator)
        for rows in order[: len(order) // size * size].view(-1, size):
            yield Examples(examples.inputs[rows], examples.targets[rows])


class Adapting:
    """The advice of a daemon, whose network learns under way: two round trips at a step with an update."""

    def __init__(self, training: Training, ahead: float, **settings: Any) -> None:
        self._optimizer = training.optimizer()
        self._advisor = training.advisor
        self._run = opened(training, **settings)
        self._batches = draw_validation(training)
        measure = training.task.loss

        def loss(model: Callable[..., Tensor], batch: Examples) -> Tensor:
            return measure(model(batch.inputs), batch.targets)

        self._meta = MetaStep(training.network, loss, self._optimizer, self._run, ahead=ahead)
        self.held = 0
        self._pending: mlrs_client.Pending | None = None

    def observe(self, step: int, loss: float) -> None:
        """Send the loss."""
        self._pending = self._run.observe(step, loss)

    def update(self) -> float:
        """Wait for the advice, and step with it; now and then, after an update, with what that gives."""
        assert self._pending is not None, "observe comes before update"  # noqa: S101  # a defect, not input
        advice = self._pending.advice(timeout_s=TIMEOUT_S)
        self.held += advice.reason is mlrs_client.AdviceReason.HELD
        set_lr(self._optimizer, advice.learning_rate)
        self._meta.step(lambda: next(self._batches))
        return float(self._optimizer.param_groups[0]["lr"])

    def finish(self, refresh: Callable[[], None]) -> None:  # noqa: ARG002  # its weights are those trained
        """Drop the run: what it was for is in the cell."""
        self._run.detach()
        self._advisor.delete_run(self._run.id)
