"""The search for the learning rate to begin with, on the trainer's own batches and `training_step`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, final

import torch
from torch.optim import LBFGS
from torch.utils.data import DataLoader, IterableDataset

from mlrs.torch import AdvisedLR, Attributes

_logger = logging.getLogger("mlrs")


def search(trainer: Any, scheduler: AdvisedLR) -> None:
    """Search before the first batch, and leave everything as it was; if that cannot be done, say why.

    Args:
        trainer: the trainer, whose loader, model and optimizer are prepared.
        scheduler: its scheduler.
    """
    loader = trainer.callback_handler.train_dataloader
    loader = getattr(loader, "base_dataloader", loader)  # Accelerate's wrapper has a state of its own
    reason = _why_not(trainer, scheduler, loader)
    if not reason:
        trials, groups = _Trials(trainer), _Groups(loader, trainer.args.gradient_accumulation_steps)
        try:
            scheduler.search(
                trainer.model_wrapped,
                trials.loss,
                groups,
                step_fn=trials.step,
                scaler=trainer.accelerator.scaler,
                also_save=[Attributes([trainer, trainer.model, *groups.samplers])],
                save_to="cpu",  # the device may have no room for a second model
            )
        except Exception as error:  # noqa: BLE001  # training goes on; what is wrong with the run shows there
            reason = repr(error)
    if reason and trainer.args.process_index == 0:
        _logger.warning("no search for the learning rate to begin with (search=False: none): %s", reason)


def _why_not(trainer: Any, scheduler: AdvisedLR, loader: Any) -> str:
    """Return why the trainer's own steps cannot be made as trials; "" if they can."""
    is_streamed = isinstance(getattr(loader, "dataset", None), IterableDataset)
    reasons = {
        "LBFGS evaluates the loss several times in a step": isinstance(scheduler.optimizer, LBFGS),
        f"the batches come from a {type(loader).__name__}": not isinstance(loader, DataLoader),
        "an IterableDataset may not give the batches again that trials have read": is_streamed,
        "FSDP wraps the model": trainer.is_fsdp_enabled,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


@final
class _Groups:
    """The trainer's batches by their place in an update, as many as it accumulates.

    They are mappings, which a search keeps in host memory and moves to no device.

    Attributes:
        generator: the loader's, as those below: a search saves the random number generators in them.
        samplers: all samplers of the loader.
    """

    def __init__(self, loader: Any, size: int) -> None:
        # A copy, because a loader with persistent workers has one iterator, which the trainer may hold.
        self._loader, self._size = copy.copy(loader), size
        self._loader._iterator = None  # noqa: SLF001  # where DataLoader keeps it
        self.samplers = list(_nested(loader))
        self.generator, self.sampler = loader.generator, self.samplers[-1]
        self.batch_sampler = loader.batch_sampler

    def __iter__(self) -> Iterator[Mapping[int, Any]]:
        batches = iter(self._loader)
        while len(group := list(islice(batches, self._size))) == self._size:
            yield MappingProxyType(dict(enumerate(group)))


def _nested(loader: Any) -> Iterator[Any]:
    """Yield the samplers of a loader from the outermost to the innermost: of shards, of batches, of rows."""
    one = loader.batch_sampler or loader.sampler
    while one is not None:
        yield one
        one = getattr(one, "batch_sampler", None) or getattr(one, "sampler", None)


@final
class _Trials:
    """The trainer's steps as trials: nothing is counted or logged, and no callback is called."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def step(self, model: Any, group: Mapping[int, Any]) -> torch.Tensor:
        """Make an update with a group of batches, and return its loss."""
        trainer = self._trainer
        batches, items = self._counted(group)
        trainer.optimizer.zero_grad()
        losses = [trainer.training_step(model, inputs, items).detach() for inputs in batches]
        if trainer.args.max_grad_norm and trainer.args.max_grad_norm > 0:
            trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        return torch.stack(losses).sum()

    def loss(self, model: Any, group: Mapping[int, Any]) -> torch.Tensor:
        """Return the loss of a group of batches, as `step` does."""
        trainer = self._trainer
        batches, items = self._counted(group)
        model.train()
        losses = []
        for inputs in batches:
            with trainer.compute_loss_context_manager():
                prepared = trainer._prepare_inputs(inputs)  # noqa: SLF001  # as its training_step does
                loss = trainer.compute_loss(model, prepared, num_items_in_batch=items)
            losses.append(loss.detach().mean())
        total = torch.stack(losses).sum()
        return total if self._is_scaled(items) else total / len(group)

    def _counted(self, group: Mapping[int, Any]) -> tuple[list[Any], Any]:
        """Return the batches, and the number of items in them that the trainer divides losses by."""
        batches, items = self._trainer.get_batch_samples(
            iter(group.values()), len(group), self._trainer.args.device
        )
        return batches, items

    def _is_scaled(self, items: Any) -> bool:
        """Return whether losses are divided by the items of the whole group, as `training_step` finds."""
        trainer = self._trainer
        stated: bool | None = getattr(trainer, "loss_is_scaled_for_ga", None)
        if stated is not None:
            return stated
        return (
            trainer.model_accepts_loss_kwargs and items is not None
        ) or trainer.compute_loss_func is not None
