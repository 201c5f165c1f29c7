"""What a process learns of its job from its launcher."""

from __future__ import annotations

import pytest

from mlrs.local.job import Job, job_of


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, Job()),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, Job(1)),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}, Job(0, spans_nodes=True)),
        ({"LOCAL_RANK": "3"}, Job(3)),
        ({"LOCAL_RANK": "none"}, Job()),
        (
            {
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            },
            Job(1, spans_nodes=True),
        ),
        ({"SLURM_LOCALID": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "4"}, Job(2)),
        (
            {"SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2"},
            Job(0, spans_nodes=True),
        ),
        ({"SLURM_LOCALID": "0", "SLURM_JOB_NUM_NODES": "4"}, Job()),
    ],
)
def test_launchers(environment: dict[str, str], job: Job) -> None:
    """Ranks and sizes are read from torchrun, Open MPI and Slurm; a process alone is the first of one."""
    assert job_of(environment) == job
