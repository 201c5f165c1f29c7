"""The search for the learning rate to begin with, on the trainer's own batches and `training_step`."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any, final

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, Optimizer
from torch.utils.data import DataLoader, IterableDataset

from mlrs.lightning.framework import DummyLogger, LightningModule, Trainer
from mlrs.torch import AdvisedLR, Attributes

_logger = logging.getLogger("mlrs")


def search(trainer: Trainer, module: LightningModule, scheduler: AdvisedLR) -> None:
    """Search before the first batch, and leave everything as it was; if that cannot be done, say why."""
    reason = _why_not(trainer, module, scheduler.optimizer)
    if not reason:
        trials, groups = _Trials(trainer, module, scheduler.optimizer), _Groups(trainer)
        try:
            with _nothing_logged(trainer, module):
                scheduler.search(
                    trainer.strategy.model or module,
                    trials.loss,
                    groups,
                    step_fn=trials.step,
                    scaler=getattr(trainer.precision_plugin, "scaler", None),
                    also_save=[Attributes([module, groups.sampler, groups.batch_sampler])],
                    save_to="cpu",  # the device may have no room for a second model
                )
        except Exception as error:  # noqa: BLE001  # training goes on; what is wrong with the run shows there
            reason = repr(error)
    if reason and trainer.is_global_zero:
        _logger.warning("no search for the learning rate to begin with (search=False: none): %s", reason)


def _why_not(trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> str:
    """Return why the trainer's own steps cannot be made as trials; "" if they can."""
    loader, model = trainer.train_dataloader, trainer.strategy.model
    is_wrapped = model is not module and not isinstance(model, DistributedDataParallel)
    is_streamed = isinstance(getattr(loader, "dataset", None), IterableDataset)
    takes_iterator = "dataloader_iter" in inspect.signature(module.training_step).parameters
    reasons = {
        "in manual optimization, training_step makes updates of its own": not module.automatic_optimization,
        "LBFGS evaluates the loss several times in a step": isinstance(optimizer, LBFGS),
        f"the batches come from a {type(loader).__name__}": not isinstance(loader, DataLoader),
        "an IterableDataset may not give the batches again that trials have read": is_streamed,
        "training_step takes batches from a dataloader_iter": takes_iterator,
        f"{type(trainer.strategy).__name__} wraps the model": is_wrapped,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


@final
class _Groups:
    """The trainer's batches by their index, as many at a time as an update accumulates.

    They are mappings, which a search keeps in host memory and moves to no device.

    Attributes:
        generator: the loader's, as those below: a search saves the random number generators in them.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._size = trainer.accumulate_grad_batches
        # A copy, because a loader with persistent workers has one iterator, which the trainer holds.
        loader: Any = copy.copy(trainer.train_dataloader)
        loader._iterator = None  # noqa: SLF001  # where DataLoader keeps it
        self._loader = loader
        self.generator = loader.generator
        self.sampler, self.batch_sampler = loader.sampler, loader.batch_sampler

    def __iter__(self) -> Iterator[Mapping[int, Any]]:
        numbered = enumerate(self._loader)
        while len(group := dict(islice(numbered, self._size))) == self._size:
            yield MappingProxyType(group)


@final
class _Trials:
    """The trainer's steps as trials: no callback is called, and nothing is counted."""

    def __init__(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        self._trainer, self._module, self._optimizer = trainer, module, optimizer
        parameters = inspect.signature(module.training_step).parameters
        self._takes_index = "batch_idx" in parameters or len(parameters) > 1

    def loss(self, _model: Any, group: Mapping[int, Any]) -> torch.Tensor:
        """Return the mean loss of a group of batches."""
        return torch.stack([self._loss(*numbered).detach() for numbered in group.items()]).mean()

    def step(self, _model: Any, group: Mapping[int, Any]) -> torch.Tensor:
        """Make an update with a group of batches, and return its mean loss."""
        scaler = getattr(self._trainer.precision_plugin, "scaler", None)
        self._optimizer.zero_grad()
        losses = []
        for numbered in group.items():
            loss = self._loss(*numbered)
            losses.append(loss.detach())
            loss = loss / len(group)
            self._module.backward(loss if scaler is None else scaler.scale(loss))
        if scaler is not None:
            scaler.unscale_(self._optimizer)
        self._module.configure_gradient_clipping(
            self._optimizer,
            gradient_clip_val=self._trainer.gradient_clip_val,
            gradient_clip_algorithm=self._trainer.gradient_clip_algorithm,
        )
        if scaler is None:
            self._optimizer.step()
        else:
            scaler.step(self._optimizer)
            scaler.update()
        return torch.stack(losses).mean()

    def _loss(self, index: int, batch: Any) -> torch.Tensor:
        """Return the loss of a batch, with which it does what the trainer does."""
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = self._module._on_before_batch_transfer(batch, dataloader_idx=0)  # noqa: SLF001  # as Trainer
        batch = self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        arguments = (batch, index) if self._takes_index else (batch,)
        output: Any = self._trainer.strategy.training_step(*arguments)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(loss, torch.Tensor):
            raise TypeError(f"training_step returned no loss in a trial, but {type(output).__name__}")
        return loss


@contextmanager
def _nothing_logged(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Let `self.log` and the loggers do nothing meanwhile."""
    parts = [part for part in module.modules() if hasattr(part, "log_dict")]
    kept = [dict(vars(part)) for part in parts]
    loggers = trainer.loggers
    for part in parts:
        vars(part).update(log=_ignored, log_dict=_ignored)
    trainer.loggers = [DummyLogger()] * len(loggers)
    try:
        yield
    finally:
        trainer.loggers = loggers
        for part, before in zip(parts, kept, strict=True):
            for name in ("log", "log_dict"):
                if name in before:
                    vars(part)[name] = before[name]
                else:
                    del vars(part)[name]


def _ignored(*_: Any, **__: Any) -> None:
    """Take what is logged, and do nothing."""
