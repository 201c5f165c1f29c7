"""Tensors on their way from a device to the host, which nothing has to wait for."""

from __future__ import annotations

from typing import cast, final

import torch


@final
class Arrival:
    """A small tensor that is copied to the host, behind the device's work so far.

    Attributes:
        is_here: whether it is on the host from the beginning.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.is_here = tensor.device.type == "cpu"
        self._arrived: torch.cuda.Event | None = None
        self._tensor = tensor.detach()
        if tensor.device.type == "cuda":
            # The copy is queued after the tensor's computation and before the loop's next work on the device.
            self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def has_arrived(self) -> bool:
        """Return whether its values can be read at once."""
        return self.is_here if self._arrived is None else bool(self._arrived.query())  # type: ignore[no-untyped-call]

    def values(self) -> list[float]:
        """Return its values; waits until they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return cast("list[float]", self._tensor.reshape(-1).tolist())
