"""What the processes of a distributed job tell each other of a meta update."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import nn

from mlrs_client._torch_ranks import Together


class Group:
    """The processes that a model is trained by: those of its scheduler, or else of `DistributedDataParallel`.

    One, if the scheduler has no others and the model is no such.
    """

    def __init__(self, model: nn.Module, together: Together | None = None) -> None:
        self._group: dist.ProcessGroup | None = None
        self._device = torch.device("cpu")
        if together is not None:
            self._group = together.group
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            self._group = model.process_group
            self._device = next(iter(model.parameters())).device
        self.is_first = self._group is None or dist.get_rank(self._group) == 0

    def mean(self, values: list[float]) -> list[float]:
        """Return the means over the processes."""
        if self._group is None:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor, group=self._group)
        means: list[float] = (tensor / dist.get_world_size(self._group)).tolist()
        return means

    def from_first(self, values: list[float | None]) -> list[float | None]:
        """Return what the first process has; NaN travels as `None`."""
        if self._group is None:
            return values
        known = [math.nan if value is None else value for value in values]
        tensor = torch.tensor(known, dtype=torch.float64, device=self._device)
        dist.broadcast(tensor, dist.get_global_rank(self._group, 0), group=self._group)
        return [None if math.isnan(value) else value for value in tensor.tolist()]
