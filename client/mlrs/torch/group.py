"""What the processes of a distributed job tell each other of a meta update."""

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

    They are those of its scheduler, if it has others; else those of `DistributedDataParallel`, or all of the
    job if parameters are spread over processes, as `fully_shard` does; else this process alone.
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
        """Find something in each process, and return what is meant for all, as means, and the rest as it is.

        All processes come here, and all learn of it if one fails: none is left waiting for another.

        Args:
            find: returns the numbers to take means of, and what is of this process alone.
            count: how many numbers those are.

        Raises:
            BaseException: what `find` raised in this process.
            UnavailableError: it raised in another one, which the error names.
        """
        if self._group is None:
            return find()
        size, failure = dist.get_world_size(self._group), None
        own: T | None = None
        flags, numbers = [0.0] * size, [0.0] * count
        try:
            numbers, own = find()
        except BaseException as error:  # noqa: BLE001  # the others wait for word, whatever it is
            failure = error
            flags[dist.get_rank(self._group)] = 1.0
        try:
            sums = self._sum([*numbers, *flags])
        except BaseException as error:
            if failure is not None:
                raise failure from error  # why the others are gone, too, may well be the same
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
        """Check that no other process failed."""
        for rank, flag in enumerate(flags):
            if flag and self._group is not None:
                raise UnavailableError(
                    f"rank {dist.get_global_rank(self._group, rank)}, one of those that make meta updates"
                    " together, failed; it says why"
                )

    def from_first(self, values: list[float | None]) -> list[float | None]:
        """Return what the first process has; NaN travels as `None`."""
        if self._group is None:
            return values
        known = [math.nan if value is None else value for value in values]
        tensor = torch.tensor(known, dtype=torch.float64, device=self._device)
        dist.broadcast(tensor, dist.get_global_rank(self._group, 0), group=self._group)
        return [None if math.isnan(value) else value for value in tensor.tolist()]
