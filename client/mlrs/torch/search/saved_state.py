"""The state of a training, saved and put back to the bit: for trials that must leave no trace."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs.errors import InvalidArgumentError
from mlrs.torch.shards import local, reshard

SaveTo = Literal["device", "cpu"]
"""Where copies of tensors are kept: beside them, or in host memory."""
Again = Callable[[], Any]
"""Puts a part of the state back, and returns it."""


class SavedState:
    """A copy of everything that training steps change, made once and put back any number of times.

    It holds parameters, buffers, gradients, training modes, the optimizer's state and settings, the AMP
    scaler, the random number generators of PyTorch, Python and NumPy, and whatever else the caller names.
    Values are put back into the tensors, dicts and lists that held them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler | None,
        also: Iterable[Any],
        save_to: SaveTo,
    ) -> None:
        """Copy the state.

        Args:
            model: the model.
            optimizer: its optimizer, not wrapped.
            scaler: the AMP scaler, if there is one.
            also: further modules, tensors, optimizers, generators or other objects with a `state_dict`.
            save_to: where the copies of tensors are kept.

        Raises:
            InvalidArgumentError: one of `also` has no state that could be saved.
        """
        self._keep = _copied_to_host if save_to == "cpu" else _copied
        self._restoring: list[Callable[[], object]] = []
        self._known: set[torch.Tensor] = set()
        self._save_module(model)
        self._save_optimizer(optimizer)
        if scaler is not None:
            self._save_scaler(scaler)
        for one in also:
            self._save_other(one)
        self._save_random()

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back, to the bit."""
        for restoring in self._restoring:
            restoring()

    def _save_module(self, module: nn.Module) -> None:
        reshard(module)  # whose parameters a forward pass may have left gathered
        self._restoring.append(partial(reshard, module))
        for weight in module.parameters():
            self._save_tensor(weight)
        for part in module.modules():
            buffers = part._buffers  # noqa: SLF001  # they may be `None`, and may be replaced
            for buffer in buffers.values():
                if buffer is not None:
                    self._save_tensor(buffer)
            self._restoring.append(partial(_put_back, buffers, dict(buffers)))
            self._restoring.append(partial(setattr, part, "training", part.training))

    def _save_tensor(self, tensor: torch.Tensor) -> None:
        """Save a tensor, once, and its gradient."""
        if tensor in self._known:
            return
        self._known.add(tensor)
        self._restoring.append(partial(_fill, tensor, self._keep(local(tensor))))
        if tensor.is_leaf:
            gradient = tensor.grad
            if gradient is not None:
                self._restoring.append(partial(_fill, gradient, self._keep(local(gradient))))
            self._restoring.append(partial(setattr, tensor, "grad", gradient))

    def _save_optimizer(self, optimizer: Optimizer) -> None:
        """Save an optimizer's weights, state and settings; its parameter groups stay the same objects."""
        for group in optimizer.param_groups:
            for weight in group["params"]:
                self._save_tensor(weight)
        state = {weight: self._tree(entries) for weight, entries in optimizer.state.items()}
        settings = [
            {name: self._tree(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]

        def restore() -> None:
            kept = {weight: again() for weight, again in state.items()}
            optimizer.state.clear()
            optimizer.state.update(kept)
            for group, setting in zip(optimizer.param_groups, settings, strict=True):
                for name in group.keys() - setting.keys() - {"params"}:
                    del group[name]
                group.update({name: again() for name, again in setting.items()})

        self._restoring.append(restore)

    def _save_scaler(self, scaler: torch.amp.GradScaler) -> None:
        """Save an AMP scaler, also from a step that ends before its `update`."""
        self._save_dict(scaler)
        self._restoring.append(partial(_forget_stages, scaler))

    def _save_other(self, one: Any) -> None:
        if isinstance(one, nn.Module):
            self._save_module(one)
        elif isinstance(one, torch.Tensor):
            self._save_tensor(one)
        elif isinstance(one, Optimizer):
            self._save_optimizer(one)
        elif isinstance(one, torch.amp.GradScaler):
            self._save_scaler(one)
        elif isinstance(one, torch.Generator):
            self._restoring.append(partial(one.set_state, one.get_state()))
        elif hasattr(one, "state_dict") and hasattr(one, "load_state_dict"):
            self._save_dict(one)
        else:
            raise InvalidArgumentError(
                "also_save takes modules, tensors, optimizers, generators, and objects with state_dict() and"
                f" load_state_dict(); one is {type(one).__name__}",
                field="also_save",
            )

    def _save_dict(self, one: Any) -> None:
        kept = copy.deepcopy(one.state_dict())
        self._restoring.append(lambda: one.load_state_dict(copy.deepcopy(kept)))

    def _save_random(self) -> None:
        self._restoring.append(partial(torch.set_rng_state, torch.get_rng_state()))
        self._restoring.append(partial(random.setstate, random.getstate()))
        if torch.cuda.is_available() and cast("Any", torch.cuda).is_initialized():
            self._restoring.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
        if torch.backends.mps.is_available():
            self._restoring.append(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
        if (numpy := sys.modules.get("numpy")) is not None:
            self._restoring.append(partial(numpy.random.set_state, numpy.random.get_state()))

    def _tree(self, value: Any) -> Again:
        """Save nested state, tensors where copies are kept; return what puts it back."""
        if isinstance(value, torch.Tensor):
            self._save_tensor(value)
            return lambda: value
        if isinstance(value, dict):
            parts = {name: self._tree(part) for name, part in value.items()}
            return lambda: _put_back(value, {name: again() for name, again in parts.items()})
        if isinstance(value, list):
            items = [self._tree(part) for part in value]
            return lambda: _put_back_list(value, [again() for again in items])
        kept = copy.deepcopy(value)
        return lambda: copy.deepcopy(kept)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _copied_to_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _fill(tensor: torch.Tensor, kept: torch.Tensor) -> None:
    local(tensor).copy_(kept)


def _forget_stages(scaler: Any) -> None:
    """Have a scaler expect a new step of each optimizer; its `update` replaces the dict."""
    getattr(scaler, "_per_optimizer_states", {}).clear()  # one that is off has none


def _put_back(held: dict[Any, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
    held.clear()
    held.update(values)
    return held


def _put_back_list(held: list[Any], values: Iterable[Any]) -> list[Any]:
    held[:] = values
    return held
