"""Optimizer steps under `torch.compile`: how often they are compiled, and that the advice reaches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import mlrs
from mlrs.torch import AdvisedLR
from tests.client.fake_daemon import lr_sequence

STEPS = 8


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    """Forget what was compiled before, and after."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def method(optimizer: torch.optim.Optimizer, **options: Any) -> Callable[[], Any]:
    """Return the optimizer's step, compiled."""
    return torch.compile(optimizer.step, **options)


def function(optimizer: torch.optim.Optimizer, **options: Any) -> Callable[[], Any]:
    """Return a compiled function that calls the optimizer's step."""
    return torch.compile(lambda: optimizer.step(), **options)  # noqa: PLW0108 # which is what users write


def trained(
    advisor: mlrs.Advisor, rate: Any, compiled: Callable[..., Callable[[], Any]] | None
) -> tuple[list[int], list[float], list[float], torch.Tensor]:
    """Train with a compiled step, or a plain one.

    Returns:
        How many graphs were compiled until the end of each step, the losses, the learning rates of the
        updates, and a weight.
    """
    graphs, counts, losses, used = list[Any](), list[int](), list[float](), list[float]()

    def backend(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": rate / 2}]
    optimizer = torch.optim.Adam(groups, lr=rate)
    scheduler = AdvisedLR(optimizer, "task", advisor=advisor, memory=False)
    step = optimizer.step if compiled is None else compiled(optimizer, backend=backend)
    batch = torch.randn(16, 4).double()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        losses.append(loss.item())
        scheduler.observe(loss)
        loss.backward()
        step()
        scheduler.step()
        counts.append(len(graphs))
        used.append(float(optimizer.param_groups[0]["lr"]))
    return counts, losses, used, model[0].weight.detach()


@pytest.mark.filterwarnings("ignore:.*is deprecated.*:DeprecationWarning")  # inside PyTorch's compiler
@pytest.mark.parametrize("compiled", [method, function])
@pytest.mark.parametrize("is_tensor", [True, False])
def test_a_compiled_step_is_compiled_once(
    advisor: mlrs.Advisor, compiled: Callable[..., Callable[[], Any]], *, is_tensor: bool
) -> None:
    """Only the optimizer is compiled: with a tensor once, with a float once more when it first changes."""

    def rate() -> Any:
        return torch.tensor(0.1, dtype=torch.float64) if is_tensor else 0.1

    counts, losses, used, weight = trained(advisor, rate(), compiled)
    assert counts == [1] * STEPS if is_tensor else [1] + [2] * (STEPS - 1)
    assert used == lr_sequence(losses)
    _, _, _, expected = trained(advisor, rate(), None)
    torch.testing.assert_close(weight, expected, rtol=1e-3, atol=0.0)  # Adam counts in float32 if compiled
