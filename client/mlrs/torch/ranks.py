"""The processes of a distributed PyTorch job as one training loop: rank 0 talks to the daemon for all.

Losses are averaged and learning rates are broadcast over a separate process group, on the CPU and in float64.
Every collective call also carries which ranks failed, and all ranks raise if one did: none waits for a rank
that will not come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Final, NamedTuple, Never, TypeVar

import torch
from torch import distributed as dist

from mlrs import Run, UnavailableError
from mlrs.errors import InvalidArgumentError, UsageError

T = TypeVar("T")


class Told(NamedTuple):
    """What a step is told."""

    learning_rate: float
    then: int
    """What is done besides its update; a small number that the caller understands."""


Asked = Callable[[], Told] | BaseException | None
"""What waits for advice, or why nothing does, on the first rank."""
ADVISED, VOID = 1.0, 2.0
"""The first rank broadcasts these with a learning rate, or without an observed loss; 0: another error."""

ID_BYTES: Final = 256
"""The longest run id."""
FLAGS: Final = 52
"""Ranks that one float64 has a bit each for: sums of different bits are exact."""


class Together:
    """The ranks of a process group; all of them make it and call its methods in the same order.

    The collective calls `begin`, `agree`, `agree_to_sum`, `ask`, `raise_on_all` and `load` raise this rank's
    error, if it failed, or else an `UnavailableError` that names the ranks which failed.

    Attributes:
        summed: how many numbers besides the loss `ask` sums over the ranks.
    """

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        """Wait for all ranks. `group`: the ranks that train together; `None`: all."""
        self._ranks = dist.get_process_group_ranks(dist.group.WORLD if group is None else group)
        self._index = self._ranks.index(dist.get_rank())
        self.is_first = self._index == 0
        self.summed = 0
        self.group = dist.new_group(self._ranks, backend="gloo", use_local_synchronization=True)

    def begin(self, begin: Callable[[], tuple[str, int]]) -> tuple[str, int]:
        """Begin on every rank; return the first rank's run id and next step."""

        def find() -> list[float]:
            run_id, step = begin()
            encoded = run_id.encode("ascii") if self.is_first else b""
            # Steps fit: they are at most 2**53.
            return [float(step) if self.is_first else 0.0, *map(float, encoded.ljust(ID_BYTES, b"\0"))]

        step, *letters = self.meet(find, 1 + ID_BYTES)
        return bytes(int(letter) for letter in letters if letter).decode("ascii"), int(step)

    def agree_to_sum(self, count: int) -> None:
        """Have `ask` sum so many numbers besides the loss, if all ranks want to; none otherwise."""
        self.summed = count if self.agree(is_able=count > 0) else 0

    def ask(
        self,
        find: Callable[[], tuple[float, float, Sequence[float]]],
        ask: Callable[[float, list[float]], Callable[[], Told]],
    ) -> Asked:
        """Let the first rank ask for advice on the mean of all losses; return the argument of `Shared`.

        Args:
            find: returns this rank's loss, the number of samples that it is the mean of, and `summed`
                numbers; a loss of 0 samples is ignored.
            ask: asks the daemon, on the first rank, given the mean loss and the means of the numbers over the
                ranks; returns a function that waits for its advice.

        Raises:
            UsageError: another rank loads a state. Nothing was asked then, nor when a rank failed.
        """

        def found() -> list[float]:
            loss, samples, numbers = find()
            return [loss * samples if samples else 0.0, samples, 0.0, *numbers]

        interrupts = list[KeyboardInterrupt]()
        total, count, loading, *sums = self.meet(found, 3 + self.summed, interrupts)
        self._check_loading(loading, 0)
        if interrupts:  # the others continue with `Shared`, and so does this rank
            return interrupts[0] if self.is_first else _raising(interrupts[0])
        if not self.is_first:
            return None
        try:
            return ask(total / count if count else math.nan, [one / len(self._ranks) for one in sums])
        except BaseException as error:  # noqa: BLE001  # an interrupt, too: the others raise in `Shared`
            return error

    def agree(self, *, is_able: bool) -> bool:
        """Return whether all ranks are able to do something. One all-reduce."""
        (able,) = self.meet(lambda: [float(is_able)], 1)
        return able == len(self._ranks)

    def raise_on_all(self, error: BaseException) -> Never:
        """Raise an error here, and let the others raise when they next observe a loss."""
        self.meet(_raising(error), 3 + self.summed)
        raise error

    def load(self, find: Callable[[], T]) -> T:
        """Compute something on every rank, which all must call; return this rank's result."""
        own: list[T] = []

        def found() -> list[float]:
            own.append(find())
            return [0.0, 0.0, 1.0, *[0.0] * self.summed]

        _, _, loading, *_ = self.meet(found, 3 + self.summed)
        self._check_loading(loading, len(self._ranks))
        return own[0]

    def share(self, word: torch.Tensor) -> None:
        """Fill in the first rank's tensor. One broadcast."""
        dist.broadcast(word, src=self._ranks[0], group=self.group)

    def first_failed(self, what: str = "got no advice") -> UnavailableError:
        """Return the error of the other ranks if the first rank has no learning rate."""
        return UnavailableError(
            f"rank {self._ranks[0]}, which talks to the daemon for all, {what}; it says why"
        )

    def meet(
        self, find: Callable[[], list[float]], count: int, interrupts: list[KeyboardInterrupt] | None = None
    ) -> list[float]:
        """Compute numbers on each rank; return their sums. One all-reduce of all ranks.

        Args:
            find: returns this rank's numbers.
            count: how many numbers there are.
            interrupts: receives an interrupt that came during the all-reduce, which is completed anyway.
        """
        numbers, failure = [0.0] * count, None
        try:
            numbers = find()
        except BaseException as error:  # noqa: BLE001  # the others wait for this rank
            failure = error
        flags = flags_of(None if failure is None else self._index, len(self._ranks))
        word = torch.tensor([*numbers, *flags], dtype=torch.float64)
        begun = list[dist.Work]()

        def meet() -> None:
            begun.append(dist.all_reduce(word, group=self.group, async_op=True))
            begun[0].wait()

        try:
            _done(meet, failure)
        except KeyboardInterrupt as error:
            if interrupts is None or failure is not None or not begun:
                raise
            begun[0].wait()
            interrupts.append(error)
        sums: list[float] = word.tolist()
        if failed := [str(self._ranks[index]) for index in failed_in(sums[count:])]:
            several = len(failed) > 1
            raise UnavailableError(
                f"rank{'s' * several} {', '.join(failed)}, of those that share the run, failed;"
                f" {'they say' if several else 'it says'} why"
            )
        return sums[:count]

    def _check_loading(self, loading: float, expected: int) -> None:
        """Raise `UsageError` if only some ranks load a state."""
        if loading != expected:
            raise UsageError(
                f"load_state_dict was called on {loading:.0f} of {len(self._ranks)} ranks, while others"
                " observed a loss; call it on every rank, between two steps"
            )


class Shared:
    """What a step is told on all ranks: the first rank's advice, bit for bit.

    Attributes:
        is_void: whether there will be none, because no loss was observed.
    """

    def __init__(self, together: Together, asked: Asked | Future[Asked]) -> None:
        """`asked`: the result of `Together.ask`, or its future in another thread."""
        self._together, self._asked = together, asked
        self._known: Told | None = None
        self.is_void = False

    def __call__(self) -> Told:
        """Return the advice; waits for it.

        Raises:
            BaseException: the first rank's error, on that rank; or an interrupt, on any rank. No other rank
                waits then, and the call may be repeated.
            UnavailableError: the first rank raised; or see `Together.ask`.
        """
        if self._known is None:
            asked = self._asked
            self._known = self._share(self._awaited(asked) if isinstance(asked, Future) else asked)
        return self._known

    def _awaited(self, read: Future[Asked]) -> Asked:
        """Wait for the other thread, also after an interrupt: the next collective depends on its result."""
        failure: BaseException | None = None
        try:
            wait([read])
        except BaseException as error:  # noqa: BLE001  # an interrupt
            failure = error
            wait([read])
        if (met := read.exception()) is not None:
            self.is_void = True
            raise met if failure is None else failure from met
        return read.result() if failure is None else _raising(failure)

    def _share(self, advised: Asked) -> Told:
        word = torch.zeros(3, dtype=torch.float64)
        failure: BaseException | None = None
        if isinstance(advised, BaseException):
            word[1], failure = VOID, advised
        elif advised is not None:
            try:
                told = advised()
                word[0], word[1], word[2] = told.learning_rate, ADVISED, told.then
            except BaseException as error:  # noqa: BLE001  # an interrupt, too, must not block the others
                failure = error
        try:
            _done(lambda: self._together.share(word), failure)
        finally:
            lr, status, then = word.tolist()
            told = Told(lr, int(then))
            self.is_void = status == VOID
            if status == ADVISED:
                self._known = told  # also if this rank raises now: the others use it
        if status != ADVISED:
            raise self._together.first_failed()
        return told


def together_of(
    run: object, group: dist.ProcessGroup | None, *, distributed: bool, rank: int | None = None
) -> Together | None:
    """Return the ranks that share a run; `None`: there is one process, or each rank reports.

    `rank` is that of a run that is still to be made.
    """
    several = distributed and dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
    reports = rank is not None or (isinstance(run, Run) and run.rank is not None)
    return Together(group) if several and not reports else None


def own_run(run: object, together: Together | None) -> Run | None:
    """Return the checked run, if this process talks to the daemon for it; `None`: another one does."""
    if run is not None and not isinstance(run, Run):
        raise InvalidArgumentError(
            f"run must be a task's name, or a run of mlrs.connect(...).run(...); is {type(run).__name__}",
            field="run",
        )
    if run is None and together is None:
        raise InvalidArgumentError(
            "run must be an open run: torch.distributed has one process here, or was not initialized before",
            field="run",
        )
    if run is None and together is not None and together.is_first:
        raise InvalidArgumentError(
            "run must be an open run on the first rank, which talks to the daemon; is None", field="run"
        )
    return run if together is None or together.is_first else None


def flags_of(index: int | None, size: int) -> list[float]:
    """Return a bit for each of `size` ranks, all 0 but that of the rank at `index`, if it failed."""
    flags = [0.0] * -(-size // FLAGS)
    if index is not None:
        flags[index // FLAGS] = 2.0 ** (index % FLAGS)
    return flags


def failed_in(sums: Sequence[float]) -> list[int]:
    """Return the indexes of the ranks that failed, from the sums of their flags."""
    bits = [(number * FLAGS, int(flag)) for number, flag in enumerate(sums)]
    return [first + index for first, flag in bits for index in range(FLAGS) if flag >> index & 1]


def _done(collective: Callable[[], object], failure: BaseException | None) -> None:
    """Make a collective call, then raise an earlier failure of this rank, if there was one."""
    try:
        collective()
    except BaseException as error:
        if failure is not None:
            raise failure from error  # the others may have failed for the same reason
        raise
    if failure is not None:
        raise failure


def _raising(error: BaseException) -> Callable[[], Never]:
    """Return a function that raises an error."""

    def raising() -> Never:
        raise error

    return raising
