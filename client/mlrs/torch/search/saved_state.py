"""The state of a training, saved and put back to the bit: for trials that must leave no trace."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs.errors import InvalidArgumentError
from mlrs.torch.copies import Copies, SaveTo


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
        self._copies = Copies(save_to, with_gradients=True)
        self._save_module(model)
        self._save_optimizer(optimizer)
        if scaler is not None:
            self._save_scaler(scaler)
        for one in also:
            self._save_other(one)
        self._save_random()

    def restore(self) -> None:
        """Put everything back, to the bit."""
        self._copies.restore()

    def _save_module(self, module: nn.Module) -> None:
        self._copies.module(module)
        for part in module.modules():
            self._copies.then(partial(setattr, part, "training", part.training))

    def _save_optimizer(self, optimizer: Optimizer) -> None:
        """Save an optimizer's weights, state and settings; its parameter groups stay the same objects."""
        self._copies.optimizer(optimizer)
        settings = [
            {name: self._copies.tree(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]

        def restore() -> None:
            for group, setting in zip(optimizer.param_groups, settings, strict=True):
                for name in group.keys() - setting.keys() - {"params"}:
                    del group[name]
                group.update({name: again(group.get(name)) for name, again in setting.items()})

        self._copies.then(restore)

    def _save_scaler(self, scaler: torch.amp.GradScaler) -> None:
        """Save an AMP scaler, also from a step that ends before its `update`."""
        self._save_dict(scaler)
        self._copies.then(partial(_forget_stages, scaler))

    def _save_other(self, one: Any) -> None:
        if isinstance(one, nn.Module):
            self._save_module(one)
        elif isinstance(one, torch.Tensor):
            self._copies.tensor(one)
        elif isinstance(one, Optimizer):
            self._save_optimizer(one)
        elif isinstance(one, torch.amp.GradScaler):
            self._save_scaler(one)
        elif isinstance(one, torch.Generator):
            self._copies.then(partial(one.set_state, one.get_state()))
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
        self._copies.then(lambda: one.load_state_dict(copy.deepcopy(kept)))

    def _save_random(self) -> None:
        self._copies.then(partial(torch.set_rng_state, torch.get_rng_state()))
        self._copies.then(partial(random.setstate, random.getstate()))
        if torch.cuda.is_available() and cast("Any", torch.cuda).is_initialized():
            self._copies.then(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
        if torch.backends.mps.is_available():
            self._copies.then(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
        if (numpy := sys.modules.get("numpy")) is not None:
            self._copies.then(partial(numpy.random.set_state, numpy.random.get_state()))


def _forget_stages(scaler: Any) -> None:
    """Have a scaler expect a new step of each optimizer; its `update` replaces the dict."""
    getattr(scaler, "_per_optimizer_states", {}).clear()  # one that is off has none
