"""The batches that the trials of a search are made on: read once, kept, and the same for all trials."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch

from mlrs.errors import InvalidArgumentError

JUDGED_BY = 4
"""Batches that all trials are compared on; they are the first that are read."""
MOST_BATCHES = 512
"""The most batches that a search keeps."""
CHUNK = 2**22
"""The most numbers that are copied at a time to name a start."""


class Batches:
    """The first batches of an iterable, kept on a device; where it has too few, from its beginning again."""

    def __init__(self, batches: Iterable[Any], device: torch.device) -> None:
        self._source: Iterator[Any] | None = iter(batches)
        self._device = device
        self._kept: list[Any] = []

    def __getitem__(self, index: int) -> Any:
        while self._source is not None and len(self._kept) <= index:
            try:
                self._kept.append(_moved(next(self._source), self._device))
            except StopIteration:
                self._source = None
            if len(self._kept) == MOST_BATCHES:
                self._source = None
        if self._source is None and len(self._kept) <= JUDGED_BY:
            raise InvalidArgumentError(
                f"batches: a search needs {JUDGED_BY + 1} batches at least, and this gave {len(self._kept)}",
                field="batches",
            )
        if index < len(self._kept):
            return self._kept[index]
        return self._kept[JUDGED_BY + (index - JUDGED_BY) % (len(self._kept) - JUDGED_BY)]

    def tensors(self, count: int) -> list[torch.Tensor]:
        """Return the tensors in the first batches."""
        return [tensor for index in range(count) for tensor in tensors_of(self[index])]


def generators_of(batches: Any) -> list[torch.Generator]:
    """Return the random number generators of its own that a loader draws batches with."""
    sampler = getattr(batches, "batch_sampler", None)
    parts = (batches, getattr(batches, "sampler", None), sampler, getattr(sampler, "sampler", None))
    held = [getattr(part, "generator", None) for part in parts]
    return [one for one in dict.fromkeys(held) if isinstance(one, torch.Generator)]


def _moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if hasattr(batch, "to"):  # packed sequences are tuples that know what stays in host memory
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: _moved(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(part, device) for part in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(_moved(part, device) for part in batch)
    return batch


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested mappings, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_of(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_of(part)


@torch.no_grad()
def sums(tensor: torch.Tensor) -> list[float]:
    """Return a tensor's sum, and its sum weighted by a wave, which tells permutations apart."""
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
    device = torch.device("cpu") if flat.device.type == "mps" else flat.device  # which has no float64
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for begin in range(0, flat.numel(), CHUNK):
        part = flat[begin : begin + CHUNK].to(device, torch.float64)
        wave = torch.arange(begin, begin + part.numel(), dtype=torch.float64, device=device).sin_()
        total += torch.stack([part.sum(), part @ wave])
    return cast("list[float]", total.tolist())
