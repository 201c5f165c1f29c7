"""Ranks of a PyTorch job that take their steps together, in processes of their own."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

import mlrs
from mlrs.torch import AdvisedLR
from tests.support.daemon import Daemon, write_random_model
from tests.support.runs import open_run

RANKS = 2


def _job(rank: int, port: int, address: str, folder: str, case: str) -> None:
    """Be a rank: do what a case says, and save what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    result: Any
    try:
        result = CASES[case](rank, address)
    except mlrs.MlrsError as error:
        result = [type(error).__name__, str(error)]
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def _weighted(rank: int, address: str) -> list[Any]:
    """Take a step with 1 sample on rank 0 and 3 on rank 1, and one whose loss rank 1 alone has."""
    with mlrs.connect(address) as advisor:
        run = open_run(advisor, "job", num_classes=10) if rank == 0 else None
        optimizer = _optimizer()
        scheduler = AdvisedLR(optimizer, run)
        scheduler.observe([1.0, 5.0][rank], samples=[1, 3][rank])
        optimizer.step()
        scheduler.step()
        scheduler.observe([None, 7.0][rank])
        optimizer.step()
        scheduler.step()
        state = scheduler.state_dict()
        other = AdvisedLR(_optimizer(), run)
        other.load_state_dict(state)
        losses = [loss for chunk in advisor.watch("job") for loss in chunk.losses] if rank == 0 else []
        return [state, other.last_epoch, other.get_last_lr(), losses]


def _refused(rank: int, address: str) -> list[Any]:
    """Take a step of a run that somebody else has finished."""
    with mlrs.connect(address) as advisor:
        run = open_run(advisor, "job", fallback=None) if rank == 0 else None
        scheduler = AdvisedLR(_optimizer(), run)
        if run is not None:
            run.finish()
        scheduler.observe(1.0)
        scheduler.step()
    return []


def _mismatched(rank: int, address: str) -> list[Any]:
    """Begin with an optimizer that the run was not begun with."""
    with mlrs.connect(address) as advisor:
        run = None
        if rank == 0:
            run = open_run(advisor, "job", optimizer="adam")
            run.next_lr(0, 1.0)
            run = open_run(advisor, "job")
        AdvisedLR(_optimizer(), run)
    return []


def _rescued(rank: int, address: str, *, able: bool = True) -> list[Any]:
    """Take steps of a data-parallel training, one of which makes the weights bad on rank 1."""
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with mlrs.connect(address) as advisor:
        run = advisor.run("task", id="job", horizon=100, policy="constant") if rank == 0 else None
        scheduler = AdvisedLR(optimizer, run, model=model, rescue=able or rank == 0)
        weights = []
        for step in range(8):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 3)).square().mean() * (math.nan if (step, rank) == (5, 1) else 1.0)
            scheduler.observe(loss)
            loss.backward()
            optimizer.step()
            scheduler.step()
            weights.append([one.tolist() for one in model.parameters()])
        chunks = list(advisor.watch("job")) if rank == 0 else []
        told = [[*chunk.restores, *chunk.restored] for chunk in chunks if chunk.losses]
        torch.manual_seed(0)
        first = torch.nn.Linear(3, 1)
        return [weights, [one.tolist() for one in first.parameters()], scheduler.get_last_lr(), told]


def _half_able(rank: int, address: str) -> list[Any]:
    """Do the same where rank 1 keeps no copy."""
    return _rescued(rank, address, able=False)


CASES = {
    "weighted": _weighted,
    "refused": _refused,
    "mismatched": _mismatched,
    "rescued": _rescued,
    "half able": _half_able,
}


def _launched(tmp_path: Path, case: str) -> list[Any]:
    """Run a case on all ranks; return what each saved."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = write_random_model(tmp_path / "tiny.safetensors")
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        multiprocessing.spawn(_job, (port, daemon.address, str(tmp_path), case), nprocs=RANKS)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.timeout(180)
def test_losses_become_one(tmp_path: Path) -> None:
    """The mean counts samples, a rank without a loss counts for nothing, and the states are one."""
    first, second = _launched(tmp_path, "weighted")
    assert first[3] == [4.0, 7.0]
    assert first[:3] == second[:3]
    assert first[0]["step"] == first[1] == 2
    assert math.isfinite(first[2][0])


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("refused", "RunFinishedError"),
        pytest.param("mismatched", "ConfigMismatchError", marks=pytest.mark.slow),
    ],
)
def test_what_befalls_rank_0_is_told_to_all(tmp_path: Path, case: str, error: str) -> None:
    """An error on rank 0, at the start or in a step, is raised on every rank: none waits for ever."""
    first, second = _launched(tmp_path, case)
    assert first[0] == error
    assert second[0] == "UnavailableError"
    assert "rank 0" in second[1]


@pytest.mark.timeout(180)
def test_all_ranks_are_put_back(tmp_path: Path) -> None:
    """After a bad loss of one rank, all have the weights of the copy, and they stay the same."""
    (weights, first, lrs, told), (others, _, other_lrs, _) = _launched(tmp_path, "rescued")
    assert repr(weights) == repr(others)  # NaN between the bad loss and the next
    assert weights[6] == first
    assert weights[7] not in (weights[4], weights[6])
    assert lrs == other_lrs == [pytest.approx(0.005)]  # half of the default with momentum
    assert told == [[6, 7]]


@pytest.mark.timeout(180)
def test_no_rank_is_put_back_unless_all_are(tmp_path: Path) -> None:
    """Where one rank keeps no copy, none puts its own back, and the learning rate alone is lowered."""
    (weights, _, lrs, told), (others, _, _, _) = _launched(tmp_path, "half able")
    assert repr(weights) == repr(others)  # NaN
    assert math.isnan(weights[5][1][0])
    assert lrs == [pytest.approx(0.01)]  # held, as all losses are bad from then on
    assert told == [[6]]


def test_a_process_by_itself_needs_a_run() -> None:
    """Without a distributed job there is no rank 0 that has the run."""
    with pytest.raises(mlrs.errors.InvalidArgumentError, match=r"torch\.distributed"):
        AdvisedLR(_optimizer(), None)
