"""The trials of a search on several ranks: one decision, the same steps, and errors that reach all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Protocol, final

import torch

from mlrs import SearchResult
from mlrs.torch.ranks import Together

_SAVE, _RESTORE, _STEP, _EVALUATE, _END, _ABORT = range(6)


class RankLoop(Protocol):
    """The loop of one rank, whose steps are made in two parts.

    Attributes:
        is_collective: once saved: whether computing a loss may communicate with other ranks.
    """

    is_collective: bool

    def save(self) -> None:
        """Save the state."""

    def restore(self) -> None:
        """Put the state back."""

    def fingerprint(self) -> list[float]:
        """Return numbers that differ where the state or the batches do."""

    def begin(self, update: int, learning_rate: float) -> None:
        """Compute the loss of an update."""

    def end(self) -> float:
        """Make the rest of the update, and return its loss."""

    def evaluate(self) -> float:
        """Return the mean loss on the batches that trials are compared on."""


@final
class SharedLoop:
    """A loop whose steps all ranks make together: the first one leads, and the others follow.

    Losses are means over the ranks. If one rank fails, all raise, at the next meeting of all. Within what
    communicates by itself, as a backward pass does, a rank that fails cannot meet the others: it raises at
    once, and they wait for it as in training, until its process ends.
    """

    def __init__(
        self, together: Together, loop: RankLoop, interrupt: KeyboardInterrupt | None = None
    ) -> None:
        """`interrupt`: one that came when the others could not be told; it is raised where all meet next."""
        self._together, self._loop, self._interrupt = together, loop, interrupt
        self._over = False
        self._sum = 0.0

    def save(self) -> None:
        """Save the state on all ranks."""
        self._lead(_SAVE)
        self._sum = self._meet(self._saved)

    def start(self) -> str:
        """Return the name of all ranks' states and batches."""
        return named([self._sum])

    def restore(self) -> None:
        """Put the state back on all ranks, unless one of them has failed: then each does so by itself."""
        if not self._over:
            self._lead(_RESTORE)
            self._meet(self._restored)

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update on all ranks, and return the mean of their losses."""
        self._lead(_STEP, update, learning_rate)
        return self._stepped(update, learning_rate)

    def evaluate(self) -> float:
        """Return the mean loss on all ranks' batches."""
        self._lead(_EVALUATE)
        return self._evaluated()

    def end(self, result: SearchResult) -> None:
        """Tell the other ranks the result."""
        rate = math.nan if result.learning_rate is None else result.learning_rate
        self._over = True
        self._lead(_END, result.steps, rate, result.octaves)
        self._raise_interrupt()

    def abort(self) -> None:
        """Tell the other ranks that the first one failed, unless they know."""
        if not self._over and self._together.is_first:
            self._over = True
            self._lead(_ABORT)

    def follow(self) -> SearchResult:
        """Do what the first rank leads, until the end; return the result, without its trials."""
        while True:
            word = torch.zeros(4, dtype=torch.float64)
            self._share(word)
            what, count, rate, octaves = word.tolist()
            if what == _SAVE:
                self._meet(self._saved)
            elif what == _RESTORE:
                self._meet(self._restored)
            elif what == _STEP:
                self._stepped(int(count), rate)
            elif what == _EVALUATE:
                self._evaluated()
            elif what == _END:
                self._raise_interrupt()
                if math.isnan(rate):
                    return SearchResult(learning_rate=None, why_not="the first rank says why")
                return SearchResult(learning_rate=rate, octaves=octaves, steps=int(count))
            else:
                self._raise_interrupt()
                raise self._together.first_failed("found no learning rate")

    def _saved(self) -> float:
        self._loop.save()
        return math.fsum(map(_folded, self._loop.fingerprint()))

    def _restored(self) -> float:
        self._loop.restore()
        return 0.0

    def _stepped(self, update: int, learning_rate: float) -> float:
        def begin() -> float:
            self._loop.begin(update, learning_rate)
            return 0.0

        (self._apart if self._loop.is_collective else self._meet)(begin)
        loss = self._apart(self._loop.end)
        return self._meet(lambda: loss)

    def _evaluated(self) -> float:
        if not self._loop.is_collective:
            return self._meet(self._loop.evaluate)
        loss = self._apart(self._loop.evaluate)
        return self._meet(lambda: loss)

    def _lead(self, what: int, count: int = 0, rate: float = 0.0, octaves: float = 0.0) -> None:
        self._share(torch.tensor([what, count, rate, octaves], dtype=torch.float64))

    def _share(self, word: torch.Tensor) -> None:
        try:
            self._together.share(word)
        except KeyboardInterrupt as error:  # the word is there, and the others meet
            self._interrupt = error

    def _apart(self, find: Callable[[], float]) -> float:
        """Return what this rank finds; if it fails, it meets no other."""
        try:
            return find()
        except BaseException:
            self._over = True
            raise

    def _meet(self, find: Callable[[], float]) -> float:
        """Return the mean over the ranks of what each finds; if one fails, all raise."""

        def found() -> list[float]:
            self._raise_interrupt()
            return [find(), 1.0]

        interrupts: list[KeyboardInterrupt] = []
        try:
            total, count = self._together.meet(found, 2, interrupts)
        except BaseException:
            self._over = True  # the others have raised, too, and wait for nothing
            raise
        if interrupts:  # the others have not raised
            self._interrupt = interrupts[0]
            if self._together.is_first:
                self._raise_interrupt()
        return total / count

    def _raise_interrupt(self) -> None:
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt


def _folded(number: float) -> float:
    """Return a number of moderate size, so that those of many tensors all count in a sum."""
    return math.sin(number) if math.isfinite(number) else 0.5


def named(numbers: Sequence[float]) -> str:
    """Return the name of a start."""
    return hashlib.sha256("|".join(map(float.hex, numbers)).encode()).hexdigest()[:32]
