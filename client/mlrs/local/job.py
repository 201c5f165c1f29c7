"""The processes of a distributed job, as its launcher tells them: torchrun, Open MPI, MPICH or Slurm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_RANKS_AND_SIZES = (
    ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),  # torchrun, Lightning, Accelerate, DeepSpeed
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MPI_LOCALRANKID", "PMI_SIZE", "MPI_LOCALNRANKS"),
)


@dataclass(frozen=True)
class Job:
    """What a process knows of the others of its job."""

    local_rank: int = 0
    """Its rank among those on this machine."""
    spans_nodes: bool = False
    """Whether some are on other machines."""


def job_of(environment: Mapping[str, str] = os.environ) -> Job:
    """Return the job of this process; a process alone is the first of one."""
    for rank, size, local_size in _RANKS_AND_SIZES:
        if rank in environment:
            total, here = _number(environment, size), _number(environment, local_size)
            return Job(_number(environment, rank) or 0, bool(total and here and total > here))
    if "SLURM_LOCALID" in environment:
        nodes, tasks = (
            _number(environment, "SLURM_STEP_NUM_NODES"),
            _number(environment, "SLURM_STEP_NUM_TASKS"),
        )
        return Job(
            _number(environment, "SLURM_LOCALID") or 0, bool(nodes and tasks and nodes > 1 and tasks > 1)
        )
    return Job()


def _number(environment: Mapping[str, str], name: str) -> int | None:
    try:
        return int(environment.get(name, ""))
    except ValueError:
        return None
