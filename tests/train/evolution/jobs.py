"""What the tests of the engines give to workers, and whom the workers talk to meanwhile."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mlrs_train.evolution.sample import Sample, draw_sample
from mlrs_train.evolution.settings import EvolutionSettings

SMALL = EvolutionSettings(
    updates=4,
    lesson_updates=1,
    lessons_per_update=2,
    lesson_steps=1,
    population=4,
    tasks_per_update=3,
    min_horizon=8,
    max_horizon=12,
    hidden_size=4,
    log_every=2,
    validate_every=3,
    families=("teacher-mlp", "quadratic"),
)


def square(number: int) -> int:
    """Return the square of a number."""
    return number**2


def refuse(number: int) -> int:
    """Raise an error."""
    raise ValueError(f"{number} is refused")


def die() -> None:
    """End the worker as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> int:
    """Send this process what a terminal sends on Ctrl-C; return the process's id."""
    os.kill(os.getpid(), signal.SIGINT)
    return os.getpid()


def threads() -> int:
    """Return the number of threads that torch computes with."""
    return torch.get_num_threads()


def meet(port: int) -> None:
    """Tell the one who listens there which process this is, and wait until it says to continue."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(os.getpid().to_bytes(4))
        connection.recv(1)


def sample_after_meeting(
    port: int, settings: EvolutionSettings, phi: Tensor, update: int, index: int
) -> Sample:
    """Return a sample, once it may continue."""
    meet(port)
    return draw_sample(settings, phi, update, index)


class Meeting:
    """Listens for workers that `meet` it."""

    def __init__(self) -> None:
        """Open a port on the loopback interface."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(60)
        self.port: int = self._socket.getsockname()[1]

    @contextmanager
    def worker(self) -> Iterator[tuple[socket.socket, int]]:
        """Return a connection to the next worker, and its process id."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(60)
            yield connection, int.from_bytes(connection.recv(4))

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
