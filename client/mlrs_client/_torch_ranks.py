"""The processes of a distributed PyTorch job as one training loop: rank 0 talks to the daemon for all.

Losses become one, and learning rates become everybody's, over a group of their own: on the CPU, in float64,
apart from whatever else is under way between the processes. Whatever befalls rank 0, it says so to the
others, which wait for nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import distributed as dist

from mlrs_client._exceptions import InvalidArgumentError, MlrsError, UnavailableError
from mlrs_client._run import Run

ID_BYTES: Final = 256
"""The longest run id."""


class Together:
    """The ranks of a process group; made, and used, by all of them in the same order."""

    def __init__(self, run: Run | None, group: dist.ProcessGroup | None) -> None:
        """`group` is who takes the steps together; `None` is everybody."""
        ranks = dist.get_process_group_ranks(dist.group.WORLD if group is None else group)
        self.is_first = dist.get_rank() == ranks[0]
        self._first = ranks[0]
        self.group = dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
        if self.is_first and run is None:
            raise InvalidArgumentError(
                "run must be an open run on the first rank, which talks to the daemon; is None", field="run"
            )

    def begin(self, begin: Callable[[], tuple[str, int]] | None) -> tuple[str, int]:
        """Return what the first rank says that the run's id and next step are.

        Raises:
            MlrsError: the first rank could not begin.
        """
        word = torch.zeros(ID_BYTES + 2, dtype=torch.float64)
        failure: Exception | None = None
        if begin is not None:
            try:
                run_id, step = begin()
            except Exception as error:  # noqa: BLE001  # the others wait for word, whatever it is
                failure = error
            else:
                encoded = run_id.encode("ascii")
                word[0], word[1] = 1.0, float(step)  # steps fit: they are at most 2**53
                word[2 : 2 + len(encoded)] = torch.tensor(list(encoded), dtype=torch.float64)
        self._broadcast(word)
        if failure is not None:
            raise failure
        if word[0] != 1.0:
            raise _first_failed(self._first)
        letters = [int(letter) for letter in word[2:].tolist() if letter]
        return bytes(letters).decode("ascii"), int(word[1])

    def ask(
        self, loss: float, samples: float, ask: Callable[[float], Callable[[], float]]
    ) -> Callable[[], float]:
        """Have the first rank ask for advice on the mean of all losses; return what returns the advice.

        Args:
            loss: this rank's.
            samples: that it is the mean of; 0, and it counts for nothing.
            ask: asks the daemon, on the first rank; returns what waits for its advice.
        """
        sums = torch.tensor([loss * samples if samples else 0.0, samples], dtype=torch.float64)
        dist.all_reduce(sums, group=self.group)
        total, count = sums.tolist()
        if not self.is_first:
            return lambda: self._share(None)
        asked: Callable[[], float]
        try:
            asked = ask(total / count if count else math.nan)
        except Exception as error:  # noqa: BLE001  # the others wait for word: it is told when they do
            failure = error

            def asked() -> float:
                raise failure

        return lambda: self._share(asked)

    def _share(self, advice: Callable[[], float] | None) -> float:
        """Return the learning rate that the first rank is advised, bit for bit."""
        word = torch.zeros(2, dtype=torch.float64)
        failure: BaseException | None = None
        if advice is not None:
            try:
                word[0], word[1] = advice(), 1.0
            except BaseException as error:  # noqa: BLE001  # an interrupt, too, must not keep them waiting
                failure = error
        self._broadcast(word)
        if failure is not None:
            raise failure
        if word[1] != 1.0:
            raise _first_failed(self._first)
        return float(word[0])

    def _broadcast(self, word: torch.Tensor) -> None:
        dist.broadcast(word, src=self._first, group=self.group)


def together_of(run: Run | None, group: dist.ProcessGroup | None, *, distributed: bool) -> Together | None:
    """Return the ranks that share a run; `None`: this process is by itself, or each rank reports.

    Raises:
        InvalidArgumentError: this process is by itself, and has no run.
    """
    several = distributed and dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
    if several and (run is None or run.rank is None):
        return Together(run, group)
    if run is None:
        raise InvalidArgumentError(
            "run must be an open run: torch.distributed has one process here, or was not initialized before",
            field="run",
        )
    return None


def _first_failed(first: int) -> MlrsError:
    return UnavailableError(f"rank {first}, which talks to the daemon for all, got no advice; it says why")
