"""The state of a training, saved and put back to the bit: for trials that must leave no trace."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs.errors import InvalidArgumentError
from mlrs.torch.shards import local

SaveTo = Literal["device", "cpu"]
"""Where copies of tensors are kept: beside them, or in host memory."""


class SavedState:
    """A copy of everything that training steps change, made once and put back any number of times.

    It holds parameters, buffers, gradients, training modes, the optimizer's state and settings, the AMP
    scaler, the random number generators of PyTorch, Python and NumPy, and whatever else the caller names.
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
            also: further modules, tensors, optimizers or other objects with a `state_dict`.
            save_to: where the copies of tensors are kept.

        Raises:
            InvalidArgumentError: one of `also` has no state that could be saved.
        """
        self._keep = _copied_to_host if save_to == "cpu" else _copied
        self._restoring: list[Callable[[], None]] = []
        weights = dict.fromkeys(weight for group in optimizer.param_groups for weight in group["params"])
        self._save_module(model)
        self._save_tensors([weight for weight in weights if weight not in set(model.parameters())])
        self._save_gradients([*weights])
        self._save_optimizer(optimizer)
        if scaler is not None:
            self._save_dict(scaler)
        for one in also:
            self._save_other(one)
        self._save_random()

    def restore(self) -> None:
        """Put everything back, to the bit."""
        for restoring in self._restoring:
            restoring()

    def _save_module(self, module: nn.Module) -> None:
        self._save_tensors([*module.parameters(), *module.buffers()])
        modes = [(part, part.training) for part in module.modules()]

        def restore() -> None:
            for part, mode in modes:
                part.training = mode

        self._restoring.append(restore)

    def _save_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        pairs = [(tensor, self._keep(local(tensor))) for tensor in tensors]

        @torch.no_grad()
        def restore() -> None:
            for tensor, kept in pairs:
                local(tensor).copy_(kept)

        self._restoring.append(restore)

    def _save_gradients(self, weights: Iterable[torch.Tensor]) -> None:
        triples = [
            (weight, weight.grad, None if weight.grad is None else self._keep(local(weight.grad)))
            for weight in weights
        ]

        @torch.no_grad()
        def restore() -> None:
            for weight, gradient, kept in triples:
                if gradient is not None and kept is not None:
                    local(gradient).copy_(kept)
                weight.grad = gradient

        self._restoring.append(restore)

    def _save_optimizer(self, optimizer: Optimizer) -> None:
        """Save an optimizer's state and settings; its parameter groups stay the same objects."""
        state = {weight: self._tree(entries) for weight, entries in optimizer.state.items()}
        settings = [
            {name: self._tree(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]

        @torch.no_grad()
        def restore() -> None:
            optimizer.state.clear()
            for weight, entries in state.items():
                optimizer.state[weight] = _again(entries, weight.device)
            for group, kept in zip(optimizer.param_groups, settings, strict=True):
                for name in group.keys() - kept.keys() - {"params"}:
                    del group[name]
                for name, value in kept.items():
                    if isinstance(group.get(name), torch.Tensor):  # captured graphs hold this tensor
                        group[name].copy_(value)
                    else:
                        group[name] = _again(value, None)

        self._restoring.append(restore)

    def _save_other(self, one: Any) -> None:
        if isinstance(one, nn.Module):
            self._save_module(one)
        elif isinstance(one, torch.Tensor):
            self._save_tensors([one])
        elif isinstance(one, Optimizer):
            self._save_optimizer(one)
        elif hasattr(one, "state_dict") and hasattr(one, "load_state_dict"):
            self._save_dict(one)
        else:
            raise InvalidArgumentError(
                "also_save takes modules, tensors, optimizers, and objects with state_dict() and"
                f" load_state_dict(); one is {type(one).__name__}",
                field="also_save",
            )

    def _save_dict(self, one: Any) -> None:
        kept = copy.deepcopy(one.state_dict())
        self._restoring.append(lambda: one.load_state_dict(copy.deepcopy(kept)))

    def _save_random(self) -> None:
        host, devices = torch.get_rng_state(), _device_generators()
        python, numpy = random.getstate(), sys.modules.get("numpy")
        drawn = None if numpy is None else numpy.random.get_state()

        def restore() -> None:
            torch.set_rng_state(host)
            for set_state, state in devices:
                set_state(state)
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(drawn)

        self._restoring.append(restore)

    def _tree(self, value: Any) -> Any:
        """Return a copy of nested state, with its tensors where they are kept."""
        if isinstance(value, torch.Tensor):
            return self._keep(value)
        if isinstance(value, dict):
            return {name: self._tree(part) for name, part in value.items()}
        return copy.deepcopy(value)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _copied_to_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _again(value: Any, device: torch.device | None) -> Any:
    """Return a copy of kept state, with its tensors on a device, but for those that live in host memory."""
    if isinstance(value, torch.Tensor):
        # Counts of steps are kept in host memory by most optimizers, and have no dimension.
        return value.clone() if device is None or value.dim() == 0 else value.to(device, copy=True)
    if isinstance(value, dict):
        return {name: _again(part, device) for name, part in value.items()}
    return copy.deepcopy(value)


def _device_generators() -> list[tuple[Callable[[Any], None], Any]]:
    """Return what sets the state of each device's random number generator, with its state now."""
    if not (torch.cuda.is_available() and cast("Any", torch.cuda).is_initialized()):
        return []
    return [(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())]
