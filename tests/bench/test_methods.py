"""The methods: each trains, and sets the LR that its source says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mlrs_bench.cell import Cell
from mlrs_bench.errors import NotGivenError, UnknownNameError
from mlrs_bench.methods import Method, choose_methods
from mlrs_bench.methods.l4 import ALPHA, FIRST_GAMMA, GAMMA
from mlrs_bench.methods.three_step import SHARES
from mlrs_bench.rules import RULES
from mlrs_bench.task import Task
from mlrs_bench.training import draw_batches, first_network
from mlrs_core.scale import shu_gamma

Train = Callable[..., Cell]
UNTUNED = [
    "mlr-snet",
    "mlr-snet-progress",
    "mlr-snet-loss",
    "paper",
    "cosine",
    "linear",
    "wsd",
    "constant",
    "plateau",
    "greedy",
    "hypergradient",
    "l4",
    "three-step",
    "schedule-free",
    "prodigy",
    "d-adaptation",
]


@pytest.mark.parametrize("optimizer", RULES)
def test_every_method_trains_from_the_same_weights_on_the_same_batches(
    train_tiny: Train, methods: dict[str, Method], optimizer: str
) -> None:
    """Within a row and a seed, all methods measure the same first loss, before the LRs can matter."""
    first_losses, initial = set(), set()
    for name in UNTUNED:
        method = methods[name]
        if optimizer in method.optimizers:
            cell = train_tiny(name, optimizer=optimizer, base_lr=method.base_lrs.get(optimizer))
            assert len(cell.lr_curve) == cell.horizon or cell.diverged, name
            assert math.isfinite(cell.test_loss), name
            assert cell.held == 0, name
            first_losses.add(cell.train_curve[0])
            initial.add(cell.initial_test_loss)
    assert len(first_losses) == len(initial) == 1
    other_seed = train_tiny("l4", optimizer=optimizer, seed=101)
    assert other_seed.train_curve[0] not in first_losses


def test_the_list_of_methods_is_whole(methods: dict[str, Method]) -> None:
    """The tests here run every method but the tuned schedules, which are the untuned ones at another LR."""
    assert {*UNTUNED, "tuned-cosine", "tuned-linear", "tuned-wsd"} == set(methods)


@pytest.mark.parametrize(
    ("policy", "last"), [("cosine", 0.0068), ("linear", 0.0526), ("wsd", 0.134), ("constant", 1.0)]
)
def test_schedules_follow_their_shape(train_tiny: Train, policy: str, last: float) -> None:
    """The daemon's schedules warm up for a twentieth, and end at this share of the base LR."""
    cell = train_tiny(policy, base_lr=0.05, seed=102)
    lrs = [lr for _, lr in cell.lr_curve]
    assert max(lrs) == pytest.approx(0.05, rel=0.02)
    assert lrs[-1] / 0.05 == pytest.approx(last, rel=0.02)


@pytest.mark.parametrize("start", [0.1, 10.0])
def test_starts_are_told_to_the_network(train_tiny: Train, start: float) -> None:
    """Told to start ten times off, the network's first LRs are about ten times off."""
    usual = train_tiny("mlr-snet", seed=103).lr_curve[0][1]
    told = train_tiny("mlr-snet", seed=103, start=start).lr_curve[0][1]
    assert told / usual == pytest.approx(start, rel=0.5)


def test_hypergradient_goes_along_the_derivative(train_tiny: Train, tiny: Task) -> None:
    """The second LR is the first one, less beta times the derivative of the second loss by the first LR."""
    lrs = [lr for _, lr in train_tiny("hypergradient", base_lr=0.01).lr_curve[:2]]
    network, train = first_network(tiny, 100), tiny.load().train
    first, second = draw_batches(tiny, len(train), 100)[:2]
    parameters = list(network.parameters())
    loss = tiny.loss(network(train.inputs[first]), train.targets[first])
    gradients = torch.autograd.grad(loss, parameters)
    lr = torch.tensor(0.01, requires_grad=True)
    decay = tiny.weight_decay["sgd"]
    moved = [
        parameter.detach() - lr * (gradient + decay * parameter.detach())
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    names = [name for name, _ in network.named_parameters()]
    outputs = torch.func.functional_call(
        network, dict(zip(names, moved, strict=True)), (train.inputs[second],)
    )
    derivative = torch.autograd.grad(tiny.loss(outputs, train.targets[second]), lr)[0].item()
    assert lrs[0] == 0.01
    assert lrs[1] - lrs[0] == pytest.approx(-1e-3 * derivative, rel=1e-2)


def test_l4_takes_a_share_of_the_linearized_loss(train_tiny: Train, tiny: Task) -> None:
    """L4's first LR is alpha (L - gamma gamma_0 L) / |g|^2, as its paper says."""
    network, train = first_network(tiny, 100), tiny.load().train
    batch = draw_batches(tiny, len(train), 100)[0]
    loss = tiny.loss(network(train.inputs[batch]), train.targets[batch])
    parameters = list(network.parameters())
    decay = tiny.weight_decay["sgd"]
    gradients = torch.autograd.grad(loss, parameters)
    square = sum(
        (gradient + decay * parameter).square().sum().item()
        for gradient, parameter in zip(gradients, parameters, strict=True)
    )
    expected = ALPHA * (1 - GAMMA * FIRST_GAMMA) * loss.item() / square
    assert train_tiny("l4").lr_curve[0][1] == pytest.approx(expected, rel=1e-4)


def test_the_three_steps_follow_the_loss_at_each_third(train_tiny: Train) -> None:
    """The control's LRs are level in each third, at its share of the authors' gamma of its first loss."""
    cell = train_tiny("three-step")
    for third, share in enumerate(SHARES):
        begin = third * (cell.horizon // 3)
        (lr,) = {lr for step, lr in cell.lr_curve if begin <= step < begin + cell.horizon // 3}
        loss = cell.train_curve[begin][1]
        assert lr == pytest.approx(share * shu_gamma(loss, math.log(3)), rel=1e-4)


def test_schedule_free_is_judged_at_its_average(train_tiny: Train) -> None:
    """Schedule-free is good at the weights that it is judged at, running statistics included."""
    cell = train_tiny("schedule-free")
    assert cell.test_loss < 0.7 * cell.initial_test_loss


def test_unknown_methods_are_named(methods: dict[str, Method]) -> None:
    """A method that is not there is refused with those that are, one without its file with the option."""
    with pytest.raises(UnknownNameError, match=r"'nope' is unknown; known: mlr-snet, .*d-adaptation"):
        choose_methods(list(methods.values()), ["l4", "nope"])
    with pytest.raises(NotGivenError, match="'official' needs --official FOLDER"):
        choose_methods(list(methods.values()), ["official"])
