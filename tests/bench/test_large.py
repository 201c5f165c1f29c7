"""The large tasks: what they consist of, a step of each, and that nobody trains them unasked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mlrs_bench.errors import NotGivenError
from mlrs_bench.task import Task
from mlrs_bench.tasks import CIFAR10_TASKS, LARGE_TASKS, TASKS, choose_tasks, collect_tasks, large, text
from mlrs_bench.training import first_network
from tests.bench.test_tasks import check, write_images


def parameters(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(each.numel() for each in network.parameters())


def one_step(task: Task, network: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Return the loss of a batch before and after a step along its gradient."""
    inputs, targets = batch
    before = task.loss(network(inputs), targets)
    before.backward()  # type: ignore[no-untyped-call]  # torch's
    torch.optim.SGD(network.parameters(), lr=0.01).step()
    return before.item(), task.loss(network(inputs), targets).item()


def test_the_transformer_steps() -> None:
    """It has more than 5 million parameters, learns in a step, and sees no character that follows."""
    task = large.text_transformer_5m()
    network = first_network(task, 0)
    assert 5_000_000 < parameters(network) < 6_000_000
    codes = torch.arange(2 * (large.WINDOW + 1)).view(2, -1) % text.CLASSES
    inputs = codes[:, :-1]
    before, after = one_step(task, network, (inputs, codes[:, 1:]))
    assert after < before
    changed = inputs.clone()
    changed[:, 40:] = 0
    with torch.no_grad():
        assert torch.equal(network(changed)[:, :40], network(inputs)[:, :40])


@pytest.mark.slow
def test_the_transformers_text() -> None:
    """It is several megabytes of sources, the same at each call; no example is in two parts."""
    task = large.text_transformer_5m()
    splits = task.load()
    assert splits.train.inputs.numel() > 3_000_000
    assert (len(splits.valid), len(splits.test)) == tuple(large.JUDGED.values())
    large._text_splits.cache_clear()
    assert task.fingerprint(splits) == task.fingerprint(task.load())
    check(task, splits)


def test_the_residual_network_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the layers of ResNet-18 at half their widths, takes bytes, and learns in a step."""
    monkeypatch.setattr(large, "COUNTS", {"train": 210, "test": 80})
    monkeypatch.setattr(large, "VALID", 80)
    task = large.cifar10_resnet18(write_images(tmp_path / "images.npz", large.COUNTS), tmp_path / "cache")
    splits = task.load()
    network = first_network(task, 0)
    assert parameters(network) == 2_797_610
    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    assert [each.out_channels for each in layers if each.kernel_size == (3, 3)] == [32] * 5 + [64] * 4 + (
        [128] * 4 + [256] * 4
    )
    assert (splits.train.inputs.dtype, splits.train.inputs.shape) == (torch.uint8, (130, 3, 32, 32))
    assert (len(splits.valid), len(splits.test)) == (80, 80)
    before, after = one_step(task, network, splits.train.take(torch.arange(8)))
    assert after < before
    check(task, splits)


def test_colours_are_standardized() -> None:
    """Bytes become numbers whose mean over CIFAR-10 is 0, in standard deviations."""
    grey = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    white = large._Standardized()(grey)[0, :, 0, 0]
    assert white.tolist() == pytest.approx([0.5086 / 0.2470, 0.5178 / 0.2435, 0.5535 / 0.2616], rel=1e-4)


def test_large_tasks_are_run_if_they_are_named(tmp_path: Path) -> None:
    """Without names, a table is of all other tasks; the one of CIFAR-10 needs its file."""
    tasks = collect_tasks(cache=tmp_path, cifar10=tmp_path / "images.npz")
    assert [task.name for task in choose_tasks(tasks, [])] == [*TASKS, *CIFAR10_TASKS]
    names = ["text-transformer-5m", "cifar10-resnet18"]
    assert [task.name for task in choose_tasks(tasks, names)] == names
    with pytest.raises(NotGivenError, match="'cifar10-resnet18' needs --cifar10 FILE"):
        choose_tasks(collect_tasks(cache=tmp_path), names)
    assert set(LARGE_TASKS) == {"text-transformer-5m"}
