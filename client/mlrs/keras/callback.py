"""A callback that sets learning rates to a daemon's advice. `mlrs.keras` shows how it is used."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Unpack

import keras

import mlrs
from mlrs.adapters import RunOptions, RunState
from mlrs.errors import InvalidArgumentError
from mlrs.keras.batch_loss import batch_loss_of
from mlrs.keras.optimizers import accumulation_of, check_advisable, describe
from mlrs.keras.trials import Trials, batches_of, not_measured


class AdvisedLR(keras.callbacks.Callback):
    """Sets the learning rate of each batch to what a daemon advises for the loss of the batch before.

    The loss is exactly that of the batch, not the mean over the epoch that logs show. The first batch of a
    run is trained with a learning rate of 0, as no loss is known before it. A `fit` that ends is one run;
    with the same callback, the next `fit` begins another. Where the optimizer accumulates gradients, a step
    of the run is an update, and its loss the mean over the batches of the update.

    Checkpoints that Keras writes during training (`BackupAndRestore`, `ModelCheckpoint`, `model.save`) hold
    the run's state beside the weights. `BackupAndRestore` brings it back by itself. Otherwise, call
    `set_model(model)` and then `model.load_weights(path)` before `fit`.

    Put it first in the list of callbacks: those after it find `learning_rate` in their logs.

    Args:
        task: the name of what is trained.
        advisor: the connection to the daemon. Default: that of `mlrs.run`.
        search_data: training data for a search for the learning rate to begin with, since Keras shows
            callbacks none: a tuple (x, y) or (x, y, sample_weight) of arrays, cut into batches of
            `batch_size`; or an iterable of batches. The search is made before the first batch, and everything
            is put back. Default: no search.
        options: those of `mlrs.run`. `horizon`, `optimizer` and `momentum` are found out, where not given.

    Attributes:
        run: the run of the present or the last `fit`; `None` before the first.
        found: what the search came to, if there was one.

    Raises:
        InvalidArgumentError: from `fit`: the optimizer has a schedule, or an argument is wrong.
        UsageError: from `fit`: the loss of each batch cannot be had, because of `steps_per_execution` or of
            the model's own `train_step`; or several processes train together.
        MlrsError: from `fit`: as `mlrs.run` and `Run.observe`.
    """

    def __init__(
        self,
        task: str,
        *,
        advisor: mlrs.Advisor | None = None,
        search_data: Any = None,
        **options: Unpack[RunOptions],
    ) -> None:
        super().__init__()
        self.run: mlrs.Run | None = None
        self.found: mlrs.SearchResult | None = None
        self._task, self._advisor, self._options = task, advisor, options
        self._search_data = search_data
        self._loaded: dict[str, Any] | None = None  # the state of a checkpoint, until training goes on
        self._has_begun = False
        self._step = 0  # to observe next
        self._losses: list[float] = []  # of the batches of an update so far
        self._pending: mlrs.Pending | None = None
        self._is_observed = False  # whether the loss of the batch at hand was
        self._lr = 0.0  # of the batch at hand
        self._horizon: int | None = None

    def set_model(self, model: Any) -> None:
        """Take the model, whose checkpoints hold the run's state from now on; `fit` calls it, too."""
        super().set_model(model)
        self._batch_loss = batch_loss_of(model)
        self._batch_loss.own(self)
        if model.built and model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)  # which load_weights needs

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that the training can be advised."""
        del logs
        check_advisable(self.model)
        self._accumulation_steps = accumulation_of(self.model.optimizer)
        self._has_begun = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the run, or continue that of a checkpoint, before the first epoch."""
        del logs
        if not self._has_begun:
            self._begin(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Wait for the advice for the batch before, and set the learning rate to it."""
        del batch, logs
        self._is_observed = False
        if self._loaded is not None:
            self._resume(self._own_run(), self._loaded)
        self._set(self._newest_lr())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Send the loss of the batch, and log its learning rate."""
        del batch
        self._observe()
        if not self._is_observed:
            raise not_measured()
        if logs is not None:
            logs["learning_rate"] = self._lr

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the learning rate of the last batch, and tell the validation loss if there is one."""
        del epoch
        if logs is not None:
            logs["learning_rate"] = self._lr
            if "val_loss" in logs:
                self._own_run().validate(self._step, float(logs["val_loss"]))

    def on_train_end(self, logs: Any = None) -> None:
        """Finish the run: Keras calls this for a training that was not interrupted."""
        del logs
        self._has_begun = False
        self._own_run().finish()

    def state(self) -> dict[str, Any] | None:
        """Return the run's state as plain values, for a checkpoint; `None`: no training is under way."""
        if not self._has_begun:
            return None
        self._observe()  # a callback before this one may save
        position = RunState(self._own_run().id, self._step, self._newest_lr())
        return {**asdict(position), "losses": self._losses, "horizon": self._horizon}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state at the next batch, with the run and at the step that it names.

        Raises:
            InvalidArgumentError: it is no state of this class.
        """
        RunState.from_dict(state)
        self._loaded = dict(state)

    def _begin(self, epoch: int) -> None:
        """Open a new run, or that of a checkpoint; make the search."""
        loaded, options = self._loaded or {}, self._options
        self._horizon = options.get("horizon") or loaded.get("horizon") or self._steps_from(epoch)
        run = mlrs.run(self._task, advisor=self._advisor, **(options | {"horizon": self._horizon}))
        self.run = run
        optimizer = self.model.optimizer
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate.value))
        run.describe(default_lr=rate or None, **describe(optimizer))
        self._losses, self._pending = [], None
        if self._loaded is not None:
            self._resume(run, self._loaded)
        else:
            state = run.state()
            self._step, self._lr = state.step, (state.last_lr or 0.0) if state.step else 0.0
        if self._search_data is not None:
            batches = batches_of(self._search_data, options.get("batch_size"))
            trials = Trials(self.model, self._batch_loss, batches, self._accumulation_steps)
            self.found = run.search(trials)
        self._batch_loss.reset_state()
        self._has_begun = True
        self._write(self._lr)

    def _steps_from(self, epoch: int) -> int | None:
        """Return how many steps the training has from an epoch on, if Keras knows."""
        batches, epochs = self.params.get("steps"), self.params.get("epochs")
        if not batches or not epochs:
            return None
        return int(batches) * (int(epochs) - epoch) // self._accumulation_steps or None

    def _resume(self, run: mlrs.Run, state: dict[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        position = RunState.from_dict(state)
        run.resume(position)
        self._loaded, self._pending, self._step = None, None, position.step
        self._losses = [float(loss) for loss in state.get("losses", [])]
        self._lr = position.last_lr or 0.0
        self._write(self._lr)

    def _observe(self) -> None:
        """Send the loss of the newest batch, if there is one and that was not done."""
        model = self.model  # on JAX, this updates the variables
        loss = None if model is None else self._batch_loss.take()
        if loss is None:
            return
        self._is_observed = True
        self._losses.append(loss)
        if len(self._losses) == self._accumulation_steps:
            mean = math.fsum(self._losses) / len(self._losses)
            self._pending = self._own_run().observe(self._step, mean)
            self._step += 1
            self._losses = []

    def _newest_lr(self) -> float:
        """Return the newest advice; waits for it."""
        return self._lr if self._pending is None else self._pending.lr()

    def _set(self, learning_rate: float) -> None:
        """Set the learning rate of the batches from now on, if it is another one."""
        self._pending = None
        if learning_rate != self._lr:
            self._lr = learning_rate
            self._write(learning_rate)

    def _write(self, learning_rate: float) -> None:
        self.model.optimizer.learning_rate = learning_rate

    def _own_run(self) -> mlrs.Run:
        if self.run is None:
            raise InvalidArgumentError(
                "the callback belongs to no training: pass it to fit", field="callbacks"
            )
        return self.run
