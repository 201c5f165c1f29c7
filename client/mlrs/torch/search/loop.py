"""The search of a PyTorch loop for the learning rate to begin with: trials that leave no trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias, cast, final

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs import SearchResult
from mlrs.adapters import TrialLoop, number
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.torch.copies import SaveTo
from mlrs.torch.ranks import Together
from mlrs.torch.search.batches import JUDGED_BY, Batches, generators_of, sums, tensors_of
from mlrs.torch.search.saved_state import SavedState
from mlrs.torch.search.shared_loop import SharedLoop, named
from mlrs.torch.shards import local, mesh_of

LossFunction: TypeAlias = Callable[[Any, Any], torch.Tensor]
"""`loss_fn(model, batch)`: the training loss of a batch, a scalar that can be differentiated."""
StepFunction: TypeAlias = Callable[[Any, Any], Any]
"""`step_fn(model, batch)`: makes a whole step of the optimizer, and returns its loss."""
Decide: TypeAlias = Callable[[TrialLoop, Callable[[], str]], SearchResult]
"""Searches with a loop and the function that names its start."""


@final
class TorchLoop:
    """The steps of a PyTorch loop as trials: a `TrialLoop` of `mlrs.adapters`.

    Attributes:
        is_collective: once saved: whether computing a loss may communicate with other ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFunction,
        batches: Iterable[Any],
        set_rate: Callable[[float], None],
        *,
        step_fn: StepFunction | None,
        scaler: torch.amp.GradScaler | None,
        also_save: Iterable[Any],
        save_to: SaveTo,
    ) -> None:
        """Save nothing yet; `set_rate` sets all learning rates."""
        if save_to not in {"device", "cpu"}:
            raise InvalidArgumentError(
                f"save_to must be 'device' or 'cpu'; is {save_to!r:.100}", field="save_to"
            )
        if isinstance(also_save, (nn.Module, torch.Tensor)) or not hasattr(also_save, "__iter__"):
            raise InvalidArgumentError(
                f"also_save must be a list of what else steps change; is {type(also_save).__name__}",
                field="also_save",
            )
        self._model, self._optimizer, self._loss_fn = model, optimizer, loss_fn
        self._set_rate, self._step_fn, self._scaler = set_rate, step_fn, scaler
        self._source = batches
        also = [*also_save, *generators_of(batches)]
        self._save: Callable[[], SavedState] = partial(SavedState, model, optimizer, scaler, also, save_to)
        self._saved: SavedState | None = None
        self._kept: Batches | None = None
        self._loss: Any = None  # of the present step
        self.is_collective = False

    def save(self) -> None:
        """Save the state, before anything is drawn from the batches."""
        self._saved = self._save()
        has_buffers = next(self._model.buffers(), None) is not None  # which DDP broadcasts
        is_shared = isinstance(self._model, nn.parallel.DistributedDataParallel) and has_buffers
        self.is_collective = is_shared or self._step_fn is not None or mesh_of(self._model) is not None
        try:
            self._kept = Batches(self._source, _device_of(self._model))
        except BaseException:
            self._saved.restore()
            raise

    def restore(self) -> None:
        """Put the state back, if it was saved."""
        if self._saved is not None:
            self._saved.restore()

    @property
    def _batches(self) -> Batches:
        assert self._kept is not None  # noqa: S101  # `save` comes first
        return self._kept

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update with a learning rate, and return its loss."""
        self.begin(update, learning_rate)
        return self.end()

    def begin(self, update: int, learning_rate: float) -> None:
        """Compute the loss of an update; with a `step_fn`, make the update, too."""
        self._set_rate(learning_rate)
        batch = self._batches[JUDGED_BY + update]
        if self._step_fn is not None:
            self._loss = self._step_fn(self._model, batch)
            return
        self._optimizer.zero_grad()
        loss: Any = self._loss_fn(self._model, batch)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise _wrong_loss("loss_fn", loss)
        self._loss = loss

    def end(self) -> float:
        """Make the rest of the update, and return its loss."""
        loss, self._loss = self._loss, None
        if self._step_fn is None and self._scaler is None:
            loss.backward()
            self._optimizer.step()
        elif self._step_fn is None and self._scaler is not None:
            cast("Any", self._scaler.scale(loss)).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return _number("loss_fn" if self._step_fn is None else "step_fn", loss)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the mean loss on the batches that trials are compared on."""
        batches = [self._batches[index] for index in range(JUDGED_BY)]
        losses = [_number("loss_fn", self._loss_fn(self._model, batch)) for batch in batches]
        return math.fsum(losses) / JUDGED_BY

    def start(self) -> str:
        """Return the name of the state and the batches."""
        return named(self.fingerprint())

    def fingerprint(self) -> list[float]:
        """Return numbers that differ where the state or the batches do."""
        tensors = [*self._model.parameters(), *self._model.buffers(), *self._batches.tensors(JUDGED_BY + 1)]
        tensors += [part for entries in self._optimizer.state.values() for part in tensors_of(entries)]
        return [one for tensor in tensors for one in sums(local(tensor))]


def _number(name: str, loss: Any) -> float:
    """Return the loss that a function of the caller's returned."""
    try:
        return number(name, loss)
    except InvalidArgumentError as error:
        raise _wrong_loss(name, loss) from error


def _wrong_loss(name: str, loss: Any) -> InvalidArgumentError:
    is_tensor = isinstance(loss, torch.Tensor)
    shown = f"a {loss.dtype} tensor of shape {tuple(loss.shape)}" if is_tensor else f"{loss!r:.100}"
    return InvalidArgumentError(f"{name} must return the loss, one real number; returned {shown}", field=name)


def _device_of(model: nn.Module) -> torch.device:
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else local(first).device


def search(make: Callable[[], TorchLoop], together: Together | None, decide: Decide) -> SearchResult:
    """Search with a loop, on all ranks if there are several; leave the loop as it was.

    Args:
        make: makes the loop, on this rank.
        together: the ranks, if there are several.
        decide: searches with a loop and the function that names its start. Called where this process talks to
            the daemon.
    """
    if together is None:
        loop = make()
        return decide(loop, loop.start)
    loops, interrupts = list[TorchLoop](), list[KeyboardInterrupt]()

    def made() -> list[float]:
        loops.append(make())
        return []

    together.meet(made, 0, interrupts)
    (loop,) = loops
    shared = SharedLoop(together, loop, *interrupts)
    try:
        if not together.is_first:
            return shared.follow()
        result = decide(shared, shared.start)
        shared.end(result)
    except BaseException:
        shared.abort()
        raise
    finally:
        loop.restore()
    return result


def check_beginning(step: int, *, has_losses: bool) -> None:
    """Raise `UsageError` unless a search comes before the first loss."""
    if has_losses:
        raise UsageError(f"search: a loss of step {step} was observed already; search before the loop begins")
