"""Networks in meta mode through the adapter of PyTorch, with rescue, told validation losses."""

from __future__ import annotations

from collections.abc import Callable

from mlrs.torch import AdvisedLR
from mlrs_bench.methods.adapting import AHEAD, steps_of
from mlrs_bench.methods.method import Training
from mlrs_bench.methods.served import opened
from mlrs_bench.methods.validating import validation_loss, validation_steps
from mlrs_bench.models import ModelFile


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
        self._step = steps_of(training, self._optimizer, self._scheduler, AHEAD[model.method])
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
