"""Networks in meta mode: a daemon serves them, and adapts them by gradients of validation losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import mlrs
from mlrs.torch import AdvisedLR, MetaStep
from mlrs_bench.methods.method import Training
from mlrs_bench.methods.served import AdvisedTraining, opened
from mlrs_bench.methods.validating import validation_loss, validation_steps
from mlrs_bench.models import ADVISED_META, ADVISED_META_RESCUE, PAPER_META, ModelFile
from mlrs_bench.task import Examples

AHEAD = {ADVISED_META: 0.5, PAPER_META: 1.0, ADVISED_META_RESCUE: 0.5}
"""Where along the step the validation gradient is taken, by method: the client's default, and the paper's."""
VALIDATION_SEED = 1 << 32
"""What is added to a training's seed for the order of its validation examples."""


def adapted(model: ModelFile) -> Callable[[Training], AdvisedTraining]:
    """Return what builds the control by a network in meta mode; an update is one more round trip."""

    def control(training: Training) -> AdvisedTraining:
        advised = AdvisedTraining(training, model=model.served_name, meta=True)
        advised.step = _steps(training, advised.optimizer, advised.run, AHEAD[model.method])
        return advised

    return control


def rescued(model: ModelFile) -> Callable[[Training], Rescued]:
    """Return what builds the control by a network in meta mode with rescue, told validation losses."""
    return lambda training: Rescued(training, model)


class Rescued:
    """A training in meta mode through the adapter of PyTorch, with all that this does by itself."""

    spent = held = 0

    def __init__(self, training: Training, model: ModelFile) -> None:
        rate, decay = training.rule.default_lr, training.weight_decay
        self._optimizer = training.rule.build(training.network.parameters(), rate, decay)
        self._run = opened(training, model=model.served_name, meta=True)
        self._scheduler = AdvisedLR(self._optimizer, self._run, model=training.network)
        self._step = _steps(training, self._optimizer, self._scheduler, AHEAD[model.method])
        self._training, self._validated = training, validation_steps(training.task.horizon)

    def observe(self, step: int, loss: float) -> None:
        """Send the loss, after the validation loss if one is due."""
        if step in self._validated:
            self._run.validate(step, validation_loss(self._training))
        self._scheduler.observe(loss)

    def update(self) -> float:
        """Step with the advice; return its learning rate."""
        self._step()
        self._scheduler.step()
        return float(self._optimizer.param_groups[0]["lr"])

    def finish(self, refresh: Callable[[], None]) -> None:  # noqa: ARG002  # its weights are those trained
        """Drop the run."""
        self._run.detach()
        self._training.advisor.delete_run(self._run.id)


def _steps(
    training: Training, optimizer: torch.optim.Optimizer, advised: mlrs.Run | AdvisedLR, ahead: float
) -> Callable[[], object]:
    """Return what makes a step, and every few steps an update of the run's network."""
    batches, measure = draw_validation(training), training.task.loss

    def loss(network: Callable[..., Tensor], batch: Examples) -> Tensor:
        return measure(network(batch.inputs), batch.targets)

    meta = MetaStep(training.network, loss, optimizer, advised, ahead=ahead)
    return lambda: meta.step(lambda: next(batches))


def draw_validation(training: Training) -> Iterator[Examples]:
    """Yield batches of validation examples, as large as those of the training, all before any comes again."""
    examples, generator = training.valid, torch.Generator().manual_seed(training.seed + VALIDATION_SEED)
    size = min(training.task.batch_size, len(examples))
    while True:
        order = torch.randperm(len(examples), generator=generator)
        for rows in order[: len(order) // size * size].view(-1, size):
            yield Examples(examples.inputs[rows], examples.targets[rows])
