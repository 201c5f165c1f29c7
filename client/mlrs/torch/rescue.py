"""Rescue in a PyTorch training: one copy in host memory, when it is made, and how it is put back.

The process that talks to the daemon decides (`Health`), and all ranks do the same (`Rescue`).
"""

from __future__ import annotations

import enum
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs.errors import InvalidArgumentError
from mlrs.torch.copies import Copies
from mlrs.torch.ranks import Together
from mlrs.torch.shards import local

_logger = logging.getLogger("mlrs")
SHARE = 0.1
"""The share of the horizon after which a copy is replaced."""
UNKNOWN = 1000
"""The steps after which it is replaced where the horizon is not known."""
RISE, DEVIATIONS = 0.1, 2.0
"""A training is healthy while its average loss is above the lowest one by at most this share of it, or by so
many deviations, as usual when it was lowest."""
LAST_RISE, LAST_DEVIATIONS = 1.0, 4.0
"""The same for the newest loss alone."""
OLD, LEAST_OLD = 0.5, 100
"""The share of the horizon, and the least steps, after which a copy is old. The daemon tells of a dead
network after a fifth of the horizon, 50 steps at least: long before the last healthy copy is old."""
MOST_OF_FREE = 0.5
"""The share of a host's free memory that copies may take."""


def free_memory() -> int | None:
    """Return the bytes that this host, or this process's control group, has free; `None` if unknown."""
    found: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(limit - used)
    except (OSError, ValueError):  # another system, or no limit ("max")
        pass
    return min(found, default=None)


class Then(enum.IntEnum):
    """What is done at a step besides its update; the numbers are broadcast to the ranks."""

    NOTHING = 0
    KEEP = 1
    """Before the update, copy the training."""
    RESTORE = 2
    """After the update, put the copy back."""


class Health:
    """Decides at each step, from the losses and its advice, what is done besides its update.

    The first step of a run is copied before its update. A copy is replaced after a healthy tenth of the
    horizon: no loss in it was NaN or infinite, no advice asked to restore, and at its end neither the average
    loss nor the newest one is far above the lowest average so far.

    Losses may also rise for a good reason, as when the data gets harder. So a copy is old at half of the
    horizon without a new one and without an advice to restore. Then the losses of now are the usual ones:
    the next tenth without a loss that is NaN or infinite replaces it.

    The loss of a step is that of the weights before its update, which a copy at this step would hold. So a
    step is copied only once its own loss was noted. Losses may be noted by another thread, in order.
    """

    def __init__(self, step: int) -> None:
        """Begin before a step of a run; a copy is made at once only if it is the first."""
        self._period = UNKNOWN
        self._since = -math.inf if step == 0 else step
        self._young = step  # since when the copy gets old
        self._old = math.inf  # at how many steps it is
        self._decided: tuple[int, Then] = (-1, Then.NOTHING)
        self._seen, self._noted = 0, -1
        self._last = self._average = self._slow = self._deviation = math.nan
        self._lowest = self._usual = math.nan  # the lowest average, and the usual deviation then

    def note(self, step: int, loss: float) -> None:
        """Take in the loss of a step."""
        if math.isfinite(loss):
            self._follow(loss)
        else:
            self._since = max(self._since, step + 1)
        self._noted = step

    def _follow(self, loss: float) -> None:
        """Move the averages by a finite loss."""
        self._last = loss
        self._seen += 1
        if self._seen == 1:
            self._average = self._slow = self._lowest = loss
            self._deviation = self._usual = 0.0
            return
        short, long = (max(min(self._seen, span), 1.0) for span in (self._period / 10, self._period))
        self._deviation += (abs(loss - self._average) - self._deviation) / long
        self._average += (loss - self._average) / short
        self._slow += (loss - self._slow) / long
        if self._average <= self._lowest:
            self._lowest, self._usual = self._average, self._deviation

    def may_keep(self, step: int) -> bool:
        """Return whether a step will be copied if its loss, when it is noted, is healthy, too."""
        if step - self._since < self._period:
            return False
        if self._seen == 0 or self._is_low(self._lowest, self._usual):
            return True
        return step - self._young >= self._old and self._is_low(self._slow, self._deviation)

    def then(self, step: int, *, restore: bool, horizon: int | None) -> Then:
        """Return what is done at a step; asked again, the same.

        Args:
            step: the step. If its loss was not noted yet, it is not copied.
            restore: whether its advice asks to restore the copy.
            horizon: the run's, in steps, if it is known.
        """
        if self._decided[0] != step:
            self._measure(step, horizon)
            self._decided = step, self._decide(step, restore=restore)
        return self._decided[1]

    def _measure(self, step: int, horizon: int | None) -> None:
        """Set how many steps a copy must wait for, and how many make it old."""
        total = max(step + 1, UNKNOWN / SHARE) if horizon is None else horizon
        self._period = UNKNOWN if horizon is None else max(math.ceil(SHARE * horizon), 1)
        self._old = max(OLD * total, LEAST_OLD)

    def _decide(self, step: int, *, restore: bool) -> Then:
        if restore:
            self._since = max(self._since, step + 1)
            self._young = step
            return Then.RESTORE
        if self._noted != step or not self.may_keep(step):
            return Then.NOTHING
        if not self._is_low(self._lowest, self._usual):
            self._lowest, self._usual = self._slow, self._deviation
        self._since = self._young = step
        return Then.KEEP

    def _is_low(self, lowest: float, usual: float) -> bool:
        """Return whether neither the average loss nor the newest one is far above an average.

        `lowest`: that average; `usual`: the usual deviation from it.
        """
        above = max(RISE * abs(lowest), DEVIATIONS * usual)
        last_above = max(LAST_RISE * abs(lowest), LAST_DEVIATIONS * usual)
        return self._average - lowest <= above and self._last - lowest <= last_above


class Rescue:
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
            _logger.warning("the training blew up: weights and optimizer state are back at the last copy")
            return True
        _logger.warning("the training blew up, and no copy was put back: learning rates alone are lowered")
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
