"""The search of a PyTorch loop for the learning rate to begin with: trials that leave no trace."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, cast, final

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs import Run, SearchResult
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.torch.ranks import Together
from mlrs.torch.saving import SavedState, SaveTo
from mlrs.torch.shards import local

LossFunction: TypeAlias = Callable[[Any, Any], torch.Tensor]
"""`loss_fn(model, batch)`: the training loss of a batch, a scalar that can be differentiated."""
StepFunction: TypeAlias = Callable[[Any, Any], Any]
"""`step_fn(model, batch)`: makes a whole step of the optimizer, and returns its loss."""
JUDGED_BY = 4
"""Batches that all trials are compared on; they are the first that are read."""
MOST_BATCHES = 512
"""The most batches that a search keeps."""


@final
class TorchLoop:
    """The steps of a PyTorch loop as trials: a `TrialLoop` of `mlrs.adapters`."""

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
        self._model, self._optimizer, self._loss_fn = model, optimizer, loss_fn
        self._set_rate, self._step_fn, self._scaler = set_rate, step_fn, scaler
        self._source = batches
        self._save: Callable[[], SavedState] = partial(
            SavedState, model, optimizer, scaler, also_save, save_to
        )
        self._saved: SavedState | None = None
        self._kept: _Batches | None = None

    def save(self) -> None:
        """Save the state, before anything is drawn from the batches."""
        self._saved = self._save()
        self._kept = _Batches(self._source, _device_of(self._model))

    def restore(self) -> None:
        """Put the state back, if it was saved."""
        if self._saved is not None:
            self._saved.restore()

    @property
    def _batches(self) -> _Batches:
        assert self._kept is not None  # noqa: S101  # `save` comes first
        return self._kept

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update with a learning rate, and return its loss."""
        self._set_rate(learning_rate)
        batch = self._batches[JUDGED_BY + update]
        if self._step_fn is not None:
            return float(self._step_fn(self._model, batch))
        self._optimizer.zero_grad()
        loss = self._loss_fn(self._model, batch)
        if self._scaler is None:
            cast("Any", loss).backward()
            self._optimizer.step()
        else:
            cast("Any", self._scaler.scale(loss)).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the mean loss on the batches that trials are compared on."""
        losses = [float(self._loss_fn(self._model, self._batches[index])) for index in range(JUDGED_BY)]
        return math.fsum(losses) / JUDGED_BY

    def start(self) -> str:
        """Return the name of the state and the batches."""
        return _named(self.fingerprint())

    def fingerprint(self) -> list[float]:
        """Return numbers that differ where the state or the batches do."""
        tensors = [*self._model.parameters(), *self._model.buffers(), *self._batches.tensors(JUDGED_BY + 1)]
        tensors += [part for entries in self._optimizer.state.values() for part in _tensors_of(entries)]
        return [number for tensor in tensors for number in _sums(local(tensor))]


class _Batches:
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
        return [tensor for index in range(count) for tensor in _tensors_of(self[index])]


def _moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: _moved(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(part, device) for part in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(_moved(part, device) for part in batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def _tensors_of(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors_of(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_of(part)


@torch.no_grad()
def _sums(tensor: torch.Tensor) -> list[float]:
    """Return a tensor's sum, and its sum weighted by a wave, which tells permutations apart."""
    flat = torch.view_as_real(tensor).double() if tensor.is_complex() else tensor.double()
    flat = flat.reshape(-1)
    wave = torch.arange(flat.numel(), dtype=torch.float64, device=flat.device).sin_()
    return [float(flat.sum()), float(flat @ wave)]


def _device_of(model: nn.Module) -> torch.device:
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else local(first).device


def search(
    run: Run | None,
    together: Together | None,
    loop: TorchLoop,
    *,
    always: bool,
    charge_steps: bool,
    timeout_s: float | None,
) -> SearchResult:
    """Search with a loop, on all ranks if there are several; leave the loop as it was.

    Args:
        run: the run, where this process talks to the daemon.
        together: the ranks, if there are several.
        loop: the loop, on this rank.
        always: as for `Run.search`.
        charge_steps: as for `Run.search`.
        timeout_s: as for `Run.search`.
    """
    settings: Any = {"always": always, "charge_steps": charge_steps, "timeout_s": timeout_s}
    if together is None:
        assert run is not None  # noqa: S101  # one process talks to the daemon itself
        return run.search(loop, start=loop.start, **settings)
    shared = SharedLoop(together, loop)
    try:
        if run is None:
            return shared.follow()
        result = run.search(shared, start=shared.start, **settings)
        shared.end(result)
    except BaseException:
        shared.abort()
        raise
    finally:
        loop.restore()
    return result


def _named(numbers: Sequence[float]) -> str:
    """Return the name of a start."""
    return hashlib.sha256("|".join(map(float.hex, numbers)).encode()).hexdigest()[:32]


_SAVE, _RESTORE, _STEP, _EVALUATE, _END, _ABORT = range(6)


@final
class SharedLoop:
    """A loop whose steps all ranks make together: the first one leads, and the others follow.

    Losses are means over the ranks. If one rank fails, all raise.
    """

    def __init__(self, together: Together, loop: TorchLoop) -> None:
        self._together, self._loop = together, loop
        self._over = False
        self._sum = 0.0

    def save(self) -> None:
        """Save the state on all ranks."""
        self._lead(_SAVE)
        self._sum = self._meet(self._saved)

    def start(self) -> str:
        """Return the name of all ranks' states and batches."""
        return _named([self._sum])

    def restore(self) -> None:
        """Put the state back on all ranks, unless one of them has failed: then each does so by itself."""
        if not self._over:
            self._lead(_RESTORE)
            self._meet(self._restored)

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update on all ranks, and return the mean of their losses."""
        self._lead(_STEP, update, learning_rate)
        return self._meet(lambda: self._loop.step(update, learning_rate))

    def evaluate(self) -> float:
        """Return the mean loss on all ranks' batches."""
        self._lead(_EVALUATE)
        return self._meet(self._loop.evaluate)

    def end(self, result: SearchResult) -> None:
        """Tell the other ranks the result."""
        rate = math.nan if result.learning_rate is None else result.learning_rate
        self._lead(_END, result.steps, rate, result.octaves)
        self._over = True

    def abort(self) -> None:
        """Tell the other ranks that the first one failed, unless they know."""
        if not self._over and self._together.is_first:
            self._over = True
            self._lead(_ABORT)

    def follow(self) -> SearchResult:
        """Do what the first rank leads, until the end; return the result, without its trials."""
        while True:
            word = torch.zeros(4, dtype=torch.float64)
            self._together.share(word)
            what, number, rate, octaves = word.tolist()
            if what == _SAVE:
                self._meet(self._saved)
            elif what == _RESTORE:
                self._meet(self._restored)
            elif what == _STEP:
                self._meet(partial(self._loop.step, int(number), rate))
            elif what == _EVALUATE:
                self._meet(self._loop.evaluate)
            elif what == _END:
                self._over = True
                if math.isnan(rate):
                    return SearchResult(learning_rate=None, why_not="the first rank says why")
                return SearchResult(learning_rate=rate, octaves=octaves, steps=int(number))
            else:
                self._over = True
                raise self._together.first_failed("found no learning rate")

    def _saved(self) -> float:
        self._loop.save()
        return math.fsum(map(_folded, self._loop.fingerprint()))

    def _restored(self) -> float:
        self._loop.restore()
        return 0.0

    def _lead(self, what: int, number: int = 0, rate: float = 0.0, octaves: float = 0.0) -> None:
        self._together.share(torch.tensor([what, number, rate, octaves], dtype=torch.float64))

    def _meet(self, find: Callable[[], float]) -> float:
        """Return the mean over the ranks of what each finds; if one fails, all raise."""
        try:
            total, count = self._together.meet(lambda: [find(), 1.0], 2)
        except BaseException:
            self._over = True  # the others have raised, too, and wait for nothing
            raise
        return total / count


def _folded(number: float) -> float:
    """Return a number of moderate size, so that those of many tensors all count in a sum."""
    return math.sin(number) if math.isfinite(number) else 0.5


def check_beginning(step: int, *, has_losses: bool) -> None:
    """Raise `UsageError` unless a search comes before the first loss."""
    if has_losses:
        raise UsageError(f"search: a loss of step {step} was observed already; search before the loop begins")
