"""A fixed sample of the coordinates of an optimizer's parameters, evenly strided through each tensor.

The sample of a small model is all of it. Of the same parameters it is always the same, so that numbers of
different steps compare; a sum over the sample, scaled up tensor by tensor, estimates the sum over all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

import torch
from torch.optim import Optimizer

from mlrs.torch.shards import local, shard_count

COORDINATES: Final = 2**16
"""The least coordinates that are sampled of a larger model; up to about twice as many are."""
LEAST: Final = 512
"""About the least coordinates of a tensor in the sample; a smaller tensor has all of its own."""


class UnsupportedError(Exception):
    """A parameter or a gradient is of a kind that has no sample."""


@final
class Part:
    """One tensor's coordinates of the sample: those of this process, if it is sharded.

    Attributes:
        index: the parameter's index among those of the sample.
        group: the index of its parameter group.
        count: how many coordinates are sampled.
        scale: what a sum over them is multiplied by to estimate the sum over the tensor.
        share: this process's share of the tensor, times its number of shards.
        is_matrix: whether the tensor has two dimensions or more.
        device: where it is.
    """

    def __init__(self, index: int, group: int, parameter: torch.Tensor, stride: int) -> None:
        """`stride`: that of the sample in a large tensor."""
        self.index, self.group = index, group
        self.is_matrix = parameter.dim() >= 2
        own, shards = local(parameter), shard_count(parameter)
        self.device = own.device
        self._layout = torch.empty_like(own, device="meta").stride()  # dense, and in the order of memory
        size = own.numel() * (2 if own.is_complex() else 1)
        self._stride = coprime(max(1, min(stride, size // LEAST)), size) if size else 1
        self.count = -(-size // self._stride)
        self.scale = shards * size / max(1, self.count)
        self.share = shards * own.numel() / max(1, parameter.numel())

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sample's coordinates of the parameter or of its gradient: a view, where it is dense.

        Raises:
            UnsupportedError: the tensor is sparse.
        """
        if tensor.layout != torch.strided:
            raise UnsupportedError("a parameter has a sparse gradient")
        tensor = local(tensor)
        if tensor.stride() != self._layout:
            same = torch.empty_strided(tensor.size(), self._layout, dtype=tensor.dtype, device=tensor.device)
            tensor = same.copy_(tensor)
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        return tensor.as_strided((self.count,), (self._stride,))


@final
class Piece:
    """The part of the sample that is on one device: coordinates of several tensors, one after another.

    Attributes:
        parts: the tensors.
        counted: the positions in `parts` of those whose relative update counts.
        shares: what each of these counts for: 1, unless it is sharded.
        scale: (coordinates,): the scale of each coordinate's tensor; `None`: all are 1.
        groups: the index of each parameter group, and where its coordinates begin and end.
    """

    def __init__(self, parts: Sequence[Part], *, has_matrices: bool) -> None:
        """`has_matrices`: whether any tensor of the sample has two dimensions; only those count then."""
        self.parts = parts
        self.counted = [at for at, part in enumerate(parts) if part.is_matrix or not has_matrices]
        self.shares = [parts[at].share for at in self.counted]
        self.groups = list[tuple[int, int, int]]()
        begin = 0
        for part in parts:
            end = begin + part.count
            if self.groups and self.groups[-1][0] == part.group:
                self.groups[-1] = (part.group, self.groups[-1][1], end)
            else:
                self.groups.append((part.group, begin, end))
            begin = end
        self.scale: torch.Tensor | None = None
        if any(part.scale != 1.0 for part in parts):
            scales = torch.tensor([part.scale for part in parts], dtype=torch.float32)
            counts = torch.tensor([part.count for part in parts])
            self.scale = scales.repeat_interleave(counts).to(parts[0].device, non_blocking=True)

    def of(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return a copy of the coordinates, in float32 or float64, of all tensors of the sample: (n,)."""
        flat = torch.cat([part.of(tensors[part.index]) for part in self.parts])
        return flat if flat.dtype == torch.float64 else flat.float()


@final
class Sample:
    """The sample of those parameters of an optimizer that have gradients.

    Attributes:
        pieces: one for each device.
    """

    def __init__(self, optimizer: Optimizer, members: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Choose the coordinates.

        Args:
            optimizer: the optimizer, of whose parameters the sample has as many as it can.
            members: the parameters that have gradients, each with the index of its group.

        Raises:
            UnsupportedError: parameters are flattened by FSDP1, or have no numbers.
        """
        self.members = members
        trained = [
            parameter
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]
        stride = max(1, sum(local(parameter).numel() for parameter in trained) // COORDINATES)
        parts = list[Part]()
        for index, (group, parameter) in enumerate(members):
            if getattr(parameter, "_is_flat_param", False) or getattr(parameter, "_fsdp_flattened", False):
                raise UnsupportedError("parameters are of a FullyShardedDataParallel; use fully_shard(model)")
            part = Part(index, group, parameter, stride)
            if part.count:
                parts.append(part)
        has_matrices = any(parameter.dim() >= 2 for _, parameter in members)
        self.pieces = [
            Piece([part for part in parts if part.device == device], has_matrices=has_matrices)
            for device in dict.fromkeys(part.device for part in parts)
        ]

    def is_of(self, members: Sequence[tuple[int, torch.Tensor]]) -> bool:
        """Return whether it is the sample of these parameters."""
        return len(members) == len(self.members) and all(
            mine is theirs and group == index
            for (group, mine), (index, theirs) in zip(self.members, members, strict=True)
        )

    def weights(self) -> list[torch.Tensor]:
        """Return a copy of the weights: for each piece, (coordinates,)."""
        tensors = [parameter for _, parameter in self.members]
        return [piece.of(tensors) for piece in self.pieces]

    def gradients(self) -> list[torch.Tensor]:
        """Return a copy of the gradients, as `weights` does."""
        tensors = [_gradient(parameter) for _, parameter in self.members]
        return [piece.of(tensors) for piece in self.pieces]


def members_of(optimizer: Optimizer) -> list[tuple[int, torch.Tensor]]:
    """Return the parameters that have gradients, each with the index of its group."""
    return [
        (index, parameter)
        for index, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
        if parameter.grad is not None
    ]


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    gradient = parameter.grad
    if gradient is None:
        raise UnsupportedError("a gradient was removed in the step")
    if getattr(gradient, "placements", None) != getattr(parameter, "placements", None):
        raise UnsupportedError("a gradient is not sharded as its parameter is")
    return gradient


def coprime(stride: int, size: int) -> int:
    """Return the smallest stride, from one on, that has no divisor in common with a tensor's size.

    Others would stay in a few columns of a matrix.
    """
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
