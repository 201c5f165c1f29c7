"""The copy of a training in host memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs.errors import InvalidArgumentError
from mlrs.torch.copies import Copies
from mlrs.torch.ranks import Together
from mlrs.torch.rescue.memory import free_memory
from mlrs.torch.shards import local

_logger = logging.getLogger("mlrs")
MOST_OF_FREE = 0.5
"""The share of a host's free memory that copies may take."""


class TrainingCopy:
    """The copy of a training in host memory, on each rank.

    It holds the weights and the state of an optimizer, and the buffers and other parameters of a model if one
    is given. Gradients, random number generators and learning rates stay as they are.
    """

    def __init__(
        self, optimizer: Optimizer, model: object, together: Together | None, *, is_on: bool
    ) -> None:
        """Keep no copy yet.

        Args:
            optimizer: the optimizer, not wrapped.
            model: the model, or `None`.
            together: the ranks that do the same.
            is_on: whether this rank makes copies.
        """
        if model is not None and not isinstance(model, nn.Module):
            raise InvalidArgumentError(
                f"model must be a torch.nn.Module; is {type(model).__name__}", field="model"
            )
        self._optimizer, self._model, self._together = optimizer, model, together
        self._copies: Copies | None = None
        self._can_copy = is_on

    def keep(self) -> None:
        """Copy the training. If that fails, say so once, and keep no copy from then on."""
        if not self._can_copy:
            return
        self._copies = None  # before the next: host memory holds one
        copies = Copies("cpu", with_gradients=False, is_weak=True)
        try:
            self._check_room()
            copies.optimizer(self._optimizer)
            if self._model is not None:
                copies.module(self._model)
        except Exception as error:  # noqa: BLE001  # training must not fail for want of memory
            self._can_copy = False
            _logger.warning("this training keeps no copy to restore from now on: %r", error)
            return
        self._copies = copies

    def _check_room(self) -> None:
        """Raise `MemoryError` if the copies of this host's processes would take much of its free memory.

        Nothing could catch the kill of a process for want of memory.
        """
        state: list[object] = [self._optimizer.state]
        size, seen = 0, set[int]()
        state += [group["params"] for group in self._optimizer.param_groups]
        if self._model is not None:
            state += [list(self._model.parameters()), list(self._model.buffers())]
        while state:
            one = state.pop()
            if isinstance(one, torch.Tensor) and id(one) not in seen:
                seen.add(id(one))
                size += local(one).nbytes
            elif isinstance(one, Mapping):
                state += one.values()
            elif isinstance(one, list | tuple):
                state += one
        size *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        free = free_memory()
        if free is not None and size > MOST_OF_FREE * free:
            raise MemoryError(
                f"the copies of this host's processes would take {size / 2**30:.1f} GiB, and"
                f" {free / 2**30:.1f} GiB are free"
            )

    def restore(self) -> bool:
        """Put the copy back into the tensors that it was made of, if every rank has one; return whether.

        One all-reduce of the ranks.
        """
        has_copy = self._copies is not None
        if self._together is not None:
            has_copy = self._together.agree(is_able=has_copy)
        if has_copy and self.restore_again():
            _logger.warning(
                "the training blew up or overfits: weights and optimizer state are back at the last copy"
            )
            return True
        _logger.warning(
            "the training blew up or overfits, and no copy was put back: learning rates alone are lowered"
        )
        return False

    def restore_again(self) -> bool:
        """Put the copy back on this rank alone; return whether. If that fails, say so, and drop the copy."""
        if self._copies is None:
            return False
        try:
            self._copies.restore()
        except Exception as error:  # noqa: BLE001  # training must not fail for want of a rescue
            _logger.warning("the copy of this training could not be put back: %r", error)
            self.forget()
            return False
        return True

    def forget(self) -> None:
        """Drop the copy."""
        self._copies = None
