"""Copies of tensors and of nested state, put back into the tensors, dicts and lists that held them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs.torch.shards import local, reshard

SaveTo = Literal["device", "cpu"]
"""Where copies of tensors are kept: beside them, or in host memory."""
Again = Callable[[], Any]
"""Puts a part of the state back, and returns it."""


class Copies:
    """Copies, made one after the other, and put back any number of times in the same order.

    Of parameters that are sharded over processes, this process's shards are copied.
    """

    def __init__(self, save_to: SaveTo, *, with_gradients: bool) -> None:
        """`save_to`: where copies are kept; `with_gradients`: whether those of tensors are copied, too."""
        self._keep = _copied_to_host if save_to == "cpu" else _copied
        self._with_gradients = with_gradients
        self._restoring: list[Callable[[], object]] = []
        self._known: set[torch.Tensor] = set()

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back, to the bit."""
        for restoring in self._restoring:
            restoring()

    def then(self, restoring: Callable[[], object]) -> None:
        """Have something else done at this point of `restore`."""
        self._restoring.append(restoring)

    def tensor(self, tensor: torch.Tensor) -> None:
        """Copy a tensor, once, and its gradient if these are copied."""
        if tensor in self._known:
            return
        self._known.add(tensor)
        self.then(partial(_fill, tensor, self._keep(local(tensor))))
        if self._with_gradients and tensor.is_leaf:
            gradient = tensor.grad
            if gradient is not None:
                self.then(partial(_fill, gradient, self._keep(local(gradient))))
            self.then(partial(setattr, tensor, "grad", gradient))

    def module(self, module: nn.Module) -> None:
        """Copy the parameters and the buffers of a module."""
        reshard(module)  # whose parameters a forward pass may have left gathered
        self.then(partial(reshard, module))
        for weight in module.parameters():
            self.tensor(weight)
        for part in module.modules():
            buffers = part._buffers  # noqa: SLF001  # they may be `None`, and may be replaced
            for buffer in buffers.values():
                if buffer is not None:
                    self.tensor(buffer)
            self.then(partial(_put_back, buffers, dict(buffers)))

    def optimizer(self, optimizer: Optimizer) -> None:
        """Copy the weights and the state of an optimizer, without the settings of its parameter groups."""
        for group in optimizer.param_groups:
            for weight in group["params"]:
                self.tensor(weight)
        state = {weight: self.tree(entries) for weight, entries in optimizer.state.items()}

        def restore() -> None:
            kept = {weight: again() for weight, again in state.items()}
            optimizer.state.clear()
            optimizer.state.update(kept)

        self.then(restore)

    def tree(self, value: Any) -> Again:
        """Copy nested state, tensors where copies are kept; return what puts it back."""
        if isinstance(value, torch.Tensor):
            self.tensor(value)
            return lambda: value
        if isinstance(value, dict):
            parts = {name: self.tree(part) for name, part in value.items()}
            return lambda: _put_back(value, {name: again() for name, again in parts.items()})
        if isinstance(value, list):
            items = [self.tree(part) for part in value]
            return lambda: _put_back_list(value, [again() for again in items])
        kept = copy.deepcopy(value)
        return lambda: copy.deepcopy(kept)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _copied_to_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _fill(tensor: torch.Tensor, kept: torch.Tensor) -> None:
    local(tensor).copy_(kept)


def _put_back(held: dict[Any, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
    held.clear()
    held.update(values)
    return held


def _put_back_list(held: list[Any], values: Iterable[Any]) -> list[Any]:
    held[:] = values
    return held
