"""Copies of tensors and of nested state, put back into the tensors, dicts and lists that held them."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs.torch.shards import is_spread, local, reshard

SaveTo = Literal["device", "cpu"]
"""Where copies of tensors are kept: beside them, or in host memory."""
Again = Callable[[Any], Any]
"""Puts a part of nested state back, given what is in its place now, and returns it."""


class Copies:
    """Copies, made one after the other, and put back any number of times in the same order.

    Of parameters that are sharded over processes, this process's shards are copied.
    """

    def __init__(self, save_to: SaveTo, *, with_gradients: bool, is_weak: bool = False) -> None:
        """Begin with none.

        Args:
            save_to: where copies are kept.
            with_gradients: whether the gradients of tensors are copied, too.
            is_weak: whether tensors of nested state may go while there is a copy, as in an optimizer's
                history; `restore` then makes them anew. Otherwise the copies keep them in memory.
        """
        self._is_weak, self._parts = is_weak, dict[int, _Part]()
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
            kept = {weight: again(optimizer.state.get(weight)) for weight, again in state.items()}
            optimizer.state.clear()
            optimizer.state.update(kept)

        self.then(restore)

    def tree(self, value: Any) -> Again:
        """Copy nested state, tensors where copies are kept; return what puts it back."""
        if isinstance(value, torch.Tensor):
            if self._is_weak and value not in self._known and not is_spread(value):
                if id(value) not in self._parts:
                    self._parts[id(value)] = _Part(value, self._keep)
                return self._parts[id(value)]
            self.tensor(value)
            return lambda _: value
        if isinstance(value, dict):
            return partial(_put_back_dict, {name: self.tree(part) for name, part in value.items()})
        if isinstance(value, list):
            return partial(_put_back_list, [self.tree(part) for part in value])
        kept = copy.deepcopy(value)
        return lambda _: copy.deepcopy(kept)


class _Part:
    """A copy of a tensor of nested state, which it does not keep in memory."""

    def __init__(self, tensor: torch.Tensor, keep: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._tensor, self._device, self._kept = weakref.ref(tensor), tensor.device, keep(tensor)

    def __call__(self, _held: object) -> torch.Tensor:
        """Put it back into the tensor, or into a new one if it is gone."""
        tensor = self._tensor()
        if tensor is None:
            tensor = self._kept.to(self._device, copy=True)
            self._tensor = weakref.ref(tensor)
        else:
            _fill(tensor, self._kept)
        return tensor


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


def _put_back_dict(parts: Mapping[Any, Again], held: Any) -> dict[Any, Any]:
    """Put the parts of a dict back, into the one that is there if there is one."""
    there = held if isinstance(held, dict) else {}
    return _put_back(there, {name: again(there.get(name)) for name, again in parts.items()})


def _put_back_list(parts: Sequence[Again], held: Any) -> list[Any]:
    """Put the items of a list back, into the one that is there if there is one."""
    there = held if isinstance(held, list) else []
    there[:] = [again(one) for again, one in zip_longest(parts, there[: len(parts)])]
    return there
