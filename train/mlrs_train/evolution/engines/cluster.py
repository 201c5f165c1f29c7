"""The engine that uses a Ray cluster: of this machine, or of many."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from typing import Any, TypeVar, final

import torch

from mlrs_train.evolution.engines.engine import ATTEMPTS, EngineError, Job, JobOutcome

T = TypeVar("T")

OWN_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Read when Ray is imported. "0" makes all of Ray listen on the loopback interface only; otherwise
    # anyone who reaches this machine could run code on it.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray's own wait is too short for a machine whose cores are all busy.
    "RAY_gcs_server_port_wait_time_s": "90",
}
"""Environment of a cluster of our own; what the user has set holds."""
PROBE_TIMEOUT_S = 5.0
"""How long a cluster may take to accept a connection. Ray itself would go on trying for minutes."""


@final
class RayCluster:
    """`JobEngine` of Ray tasks, each a core wide.

    When the worker or the machine of a job dies, Ray gives the job to another. As jobs are pure, nothing
    is lost.
    """

    def __init__(self, *, workers: int | None = None, address: str | None = None) -> None:
        """Join the cluster at an address, or start one on this machine, with this many workers.

        Without an address, a cluster that this process has joined already is used as it is, and not left
        at the end.

        Raises:
            EngineError: it cannot be reached or started.
        """
        if address is None:
            os.environ.update({name: os.environ.get(name, value) for name, value in OWN_CLUSTER.items()})
        import ray

        self._ray = ray
        self._owned = address is not None or not ray.is_initialized()
        if self._owned:
            _join(ray, workers, address)
        self._compute: Any = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_outcome)

    def compute(self, jobs: Sequence[Job[T]]) -> list[T]:
        """Return what the jobs give, in their order.

        After an error, the jobs that others still work on go on to their end, and nobody hears of them.
        They are not cancelled: in Ray 2.60 a task that ends while it is cancelled ends the whole driver,
        without an exception ("Tried to complete task that was not pending").

        Raises:
            EngineError: a job raised an error, or no worker survived it.
        """
        references = [self._compute.remote(job) for job in jobs]
        return [self._take(*pair) for pair in zip(jobs, references, strict=True)]

    def _take(self, job: Job[T], reference: Any) -> T:
        try:
            outcome: JobOutcome[T] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise EngineError(
                f"{job.name} was given to {ATTEMPTS} workers of the Ray cluster, and none answered: {error}"
            ) from error
        return outcome.unwrap(job)

    def close(self) -> None:
        """Leave the cluster, and end it if it is our own."""
        if self._owned:
            self._ray.shutdown()


def _outcome(job: Job[T]) -> JobOutcome[T]:
    """Compute a job in a worker."""
    torch.set_num_threads(1)  # as in every engine: more would sum in another order
    return JobOutcome.of(job)


def _join(ray: Any, workers: int | None, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        else:
            _probe(address)
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise EngineError(f"no Ray cluster {where}: {error}") from error


def _probe(address: str) -> None:
    """Connect to an address with a port, to know soon whether anyone is there.

    Raises:
        OSError: no one is.
    """
    if match := re.fullmatch(r"(?:\w+://)?\[?([^/]+?)\]?:(\d+)/?", address):
        socket.create_connection((match[1], int(match[2])), timeout=PROBE_TIMEOUT_S).close()
