"""Networks in meta mode: a daemon serves them, and adapts them by gradients of validation losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import mlrs
from mlrs.torch import AdvisedLR, MetaStep
from mlrs_bench.methods.method import Training
from mlrs_bench.methods.served import AdvisedTraining
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
        advised.step = steps_of(training, advised.optimizer, advised.run, AHEAD[model.method])
        return advised

    return control


def steps_of(
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
