"""The communication of a distributed job's processes about meta updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from mlrs import UnavailableError
from mlrs.torch.ranks import Together
from mlrs.torch.shards import mesh_of

T = TypeVar("T")


class Group:
    """The processes that train a model.

    They are the ranks of its scheduler, if it has several; otherwise the process group of
    `DistributedDataParallel`; or all processes if parameters are sharded (`fully_shard`); or this one alone.
    """

    def __init__(self, model: nn.Module, together: Together | None = None) -> None:
        self._group: dist.ProcessGroup | None = None
        self._device = torch.device("cpu")
        if together is not None:
            self._group = together.group
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            self._group = model.process_group
            self._device = next(iter(model.parameters())).device
        elif (mesh := mesh_of(model)) is not None:
            self._group = dist.group.WORLD
            self._device = torch.device(mesh.device_type)
        self.is_first = self._group is None or dist.get_rank(self._group) == 0

    def share(self, find: Callable[[], tuple[list[float], T]], count: int) -> tuple[list[float], T]:
        """Compute values in each process; return the means of the numbers, and this process's other values.

        A collective call: if one process fails, all raise, and none waits for another.

        Args:
            find: returns the numbers to average, and this process's other values.
            count: how many numbers there are.

        Raises:
            BaseException: what `find` raised in this process.
            UnavailableError: `find` raised in another process, which the error names.
        """
        if self._group is None:
            return find()
        size, failure = dist.get_world_size(self._group), None
        own: T | None = None
        flags, numbers = [0.0] * size, [0.0] * count
        try:
            numbers, own = find()
        except BaseException as error:  # noqa: BLE001  # the others wait for this process
            failure = error
            flags[dist.get_rank(self._group)] = 1.0
        try:
            sums = self._sum([*numbers, *flags])
        except BaseException as error:
            if failure is not None:
                raise failure from error  # the others may have failed for the same reason
            raise
        if failure is not None:
            raise failure
        self._check(sums[count:])
        return [total / size for total in sums[:count]], cast("T", own)

    def _sum(self, numbers: list[float]) -> list[float]:
        """Return the sums over the processes."""
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor, group=self._group)
        sums: list[float] = tensor.tolist()
        return sums

    def _check(self, flags: list[float]) -> None:
        """Raise `UnavailableError` if another process failed."""
        for rank, flag in enumerate(flags):
            if flag and self._group is not None:
                raise UnavailableError(
                    f"rank {dist.get_global_rank(self._group, rank)}, one of those that make meta updates"
                    " together, failed; it says why"
                )

    def from_first(self, values: list[float | None]) -> list[float | None]:
        """Return the values of the first process; `None` is sent as NaN."""
        if self._group is None:
            return values
        known = [math.nan if value is None else value for value in values]
        tensor = torch.tensor(known, dtype=torch.float64, device=self._device)
        dist.broadcast(tensor, dist.get_global_rank(self._group, 0), group=self._group)
        return [None if math.isnan(value) else value for value in tensor.tolist()]
