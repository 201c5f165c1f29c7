"""The methods: each trains, and sets the LR that its source says."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mlrs
import mlrs_core
from mlrs_bench.cell import Cell
from mlrs_bench.errors import NotGivenError, UnknownNameError
from mlrs_bench.methods import Method, all_methods, choose_methods
from mlrs_bench.methods.hypergradient import HYPER_LR
from mlrs_bench.methods.l4 import ALPHA, FIRST_GAMMA, FORGET, GAMMA, MOMENT_STEPS
from mlrs_bench.methods.packaged import Estimated, cosine_shares
from mlrs_bench.methods.three_step import SHARES
from mlrs_bench.models import OFFICIAL, ModelFile
from mlrs_bench.report.figures.methods import ADVISED, SEARCHES
from mlrs_bench.rules import RULES
from mlrs_bench.task import Task
from mlrs_bench.training import draw_batches, first_network, mean_loss
from mlrs_core.networks.drift.constants import DriftConstants
from mlrs_core.networks.scale import shu_gamma
from tests.bench.conftest import FINDERS
from tests.bench.loop import Loop

Train = Callable[..., Cell]
UNTUNED = [
    "mlr-snet",
    "mlr-snet-meta",
    "mlr-snet-meta-rescue",
    "paper",
    "paper-meta",
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


@pytest.mark.parametrize(
    ("names", "imported"),
    [
        (("cosine", "tuned-wsd", *FINDERS), ""),
        (("search-schedule", "search-linear", "search-cosine"), ", mlrs_core.search"),
    ],
)
def test_results_depend_on_all_that_schedules_and_searches_import(
    methods: dict[str, Method], names: tuple[str, ...], imported: str
) -> None:
    """Whatever of `mlrs_core` a method runs through, a change of it makes its results count no more."""
    script = (
        f"import sys, mlrs_core.advise, mlrs_core.schedules.kernel{imported}\n"
        "print(*(sys.modules[name].__file__ for name in sys.modules if name.startswith('mlrs_core')))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    core = Path(mlrs_core.__file__).parent
    for name in names:
        covered = {str(path) for pattern in methods[name].core_files for path in core.glob(pattern)}
        assert set(result.stdout.split()) == covered, name


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
    """The tests run every method but the tuned ones, which are untuned ones at another LR.

    Searches and finders, which need more steps than the tiny task has, have test files of their own.
    """
    tuned = {name for name, method in methods.items() if method.tuned}
    assert tuned == {"tuned-cosine", "tuned-linear", "tuned-wsd", "tuned-schedule-free"}
    assert {*UNTUNED, *tuned, ADVISED, *SEARCHES, *FINDERS} == set(methods)


def test_gamma_is_for_sgd_only(methods: dict[str, Method], tmp_path: Path) -> None:
    """The networks and the control that scale by the paper's gamma are not combined with AdamW."""
    official = ModelFile(OFFICIAL, "", tmp_path / "official.safetensors", "0")
    with_official = {method.name: method for method in all_methods({OFFICIAL: official})}
    gamma = [methods["paper"], methods["paper-meta"], methods["three-step"], with_official[OFFICIAL]]
    assert {method.optimizers for method in gamma} == {("sgd",)}
    assert {methods[name].optimizers for name in ("mlr-snet", ADVISED, *FINDERS)} == {("sgd", "adamw")}


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
    """Given an initial LR ten times off, its first LR is ten times off, but for the first move either way."""
    default = train_tiny("mlr-snet", seed=103).lr_curve[0][1]
    first = train_tiny("mlr-snet", seed=103, start=start).lr_curve[0][1]
    furthest = DriftConstants().rise + DriftConstants().fall
    assert math.log(first / default) == pytest.approx(math.log(start), abs=furthest + 1e-3)


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
    """L4's first LR is alpha (L - gamma gamma_0 L) / |g|^2, with weight decay a part of L as of g."""
    network, train = first_network(tiny, 100), tiny.load().train
    batch = draw_batches(tiny, len(train), 100)[0]
    loss = tiny.loss(network(train.inputs[batch]), train.targets[batch])
    parameters = list(network.parameters())
    decay = tiny.weight_decay["sgd"]
    penalty = torch.stack([parameter.square().sum() for parameter in parameters]).sum()
    penalized = loss + decay / 2 * penalty
    square = sum(each.square().sum().item() for each in torch.autograd.grad(penalized, parameters))
    expected = ALPHA * (1 - GAMMA * FIRST_GAMMA) * penalized.item() / square
    assert expected != pytest.approx(ALPHA * (1 - GAMMA * FIRST_GAMMA) * loss.item() / square, rel=1e-4)
    assert train_tiny("l4").lr_curve[0][1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("steps", [0, 4])
def test_adaptive_l4_takes_a_share_of_the_linearized_loss(
    methods: dict[str, Method], tiny: Task, advisor: mlrs.Advisor, steps: int
) -> None:
    """With AdamW, L4's LR is what the loss must fall by, over its slope along the step that was taken."""
    loop = Loop(replace(tiny, weight_decay={"sgd": 0.0, "adamw": 0.0}), "adamw", advisor)
    control = methods["l4"].control(loop.training)
    for _ in range(steps):
        loop.step(control)
    before = loop.weights()
    lr = loop.step(control)
    moves = [old - new for old, new in zip(before, loop.weights(), strict=True)]
    means = loop.mean_gradients(1 - 1 / MOMENT_STEPS)
    fall = sum(float((mean * move).sum()) for mean, move in zip(means, moves, strict=True))
    least = FIRST_GAMMA * loop.losses[0]
    for loss in loop.losses[1:]:
        least = min(least * (1 + 1 / FORGET), loss)
    assert lr > 0
    assert fall == pytest.approx(ALPHA * (loop.losses[-1] - GAMMA * least), rel=1e-6)


@pytest.mark.parametrize("steps", [0, 4])
def test_adaptive_hypergradient_goes_along_the_derivative(
    methods: dict[str, Method], tiny: Task, advisor: mlrs.Advisor, steps: int
) -> None:
    """With AdamW, the LR moves by beta times the derivative of the loss by it that autograd finds."""
    task = replace(tiny, weight_decay={"sgd": 0.0, "adamw": 0.0})
    loop = Loop(task, "adamw", advisor, base_lr=1e-3)
    control = methods["hypergradient"].control(loop.training)
    for _ in range(steps):
        loop.step(control)
    before = loop.weights()
    lr = loop.step(control)
    directions = [(old - new) / lr for old, new in zip(before, loop.weights(), strict=True)]
    derivative = loop.derivative(before, directions, lr)
    assert derivative != 0
    assert loop.step(control) - lr == pytest.approx(-HYPER_LR["adamw"] * derivative, rel=1e-5)


def test_the_three_steps_follow_the_loss_at_each_third(train_tiny: Train) -> None:
    """The control's LRs are level in each third, at its share of the authors' gamma of its first loss."""
    cell = train_tiny("three-step")
    for third, share in enumerate(SHARES):
        begin = third * (cell.horizon // 3)
        (lr,) = {lr for step, lr in cell.lr_curve if begin <= step < begin + cell.horizon // 3}
        loss = cell.train_curve[begin][1]
        assert lr == pytest.approx(share * shu_gamma(loss, math.log(3)), rel=1e-4)


def test_schedule_free_is_judged_at_its_average(train_tiny: Train, tiny: Task) -> None:
    """Schedule-free SGD is judged at the average that its paper defines, running statistics included.

    y = (1 - beta) z + beta x, z - lr grad(y), and x the mean of all z (Defazio et al., 2024, eq. 2 to 4).
    """
    lr, decay, beta = 0.1, tiny.weight_decay["sgd"], RULES["sgd"].momentum
    network, splits = first_network(tiny, 100), tiny.load()
    batches = draw_batches(tiny, len(splits.train), 100)
    y = list(network.parameters())
    x, z = [each.detach().clone() for each in y], [each.detach().clone() for each in y]
    for count, rows in enumerate(batches, start=1):
        loss = tiny.loss(network(splits.train.inputs[rows]), splits.train.targets[rows])
        gradients = torch.autograd.grad(loss, y)
        with torch.no_grad():
            for at, mean, base, gradient in zip(y, x, z, gradients, strict=True):
                base.sub_(lr * (gradient + decay * at))
                mean.lerp_(base, 1 / count)
                at.copy_((1 - beta) * base + beta * mean)
    trained_at = mean_loss(tiny, network, splits.test)
    network.train()
    with torch.no_grad():
        for at, mean in zip(y, x, strict=True):
            at.copy_(mean)
        for rows in batches:
            network(splits.train.inputs[rows])
    judged = mean_loss(tiny, network, splits.test)
    assert judged != pytest.approx(trained_at, rel=1e-2)
    assert train_tiny("schedule-free", base_lr=lr).test_loss == pytest.approx(judged, rel=1e-4)


def test_shares_are_the_cosine_that_runs_get(train_tiny: Train) -> None:
    """Optimizers that estimate their LR are under the schedule that the daemon serves as `cosine`."""
    served = [lr for _, lr in train_tiny("cosine", base_lr=1.0, seed=107).lr_curve]
    assert cosine_shares(20) == pytest.approx(served, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "optimizer"), [("prodigy", "adamw"), ("d-adaptation", "adamw"), ("d-adaptation", "sgd")]
)
def test_estimated_lrs_are_those_of_the_step(
    methods: dict[str, Method], tiny: Task, advisor: mlrs.Advisor, name: str, optimizer: str
) -> None:
    """The LR that is recorded is the one that the step used, while the estimate grows."""
    loop = Loop(tiny, optimizer, advisor)
    control = methods[name].control(loop.training)
    assert isinstance(control, Estimated)
    parameter = next(loop.training.network.parameters())
    state, decay, used = control.optimizer.state[parameter], tiny.weight_decay[optimizer], []
    for _ in range(6):
        old, before = dict(copy.deepcopy(state)), loop.weights()[0]
        loop.step(control)
        state, gradient = control.optimizer.state[parameter], loop.gradients[-1][0]
        if name == "prodigy":  # the weights' move, over what it is a multiple of
            root = state["exp_avg_sq"].sqrt() + 1e-8 * control.optimizer.param_groups[0]["d"]
            move, unit = before - parameter.detach(), state["exp_avg"] / root + decay * before
        elif optimizer == "adamw":  # here of the average gradient, which the LR is already in
            move, unit = state["exp_avg"] - 0.9 * old.get("exp_avg", 0), 0.1 * gradient
        else:  # and of the sum of gradients
            move, unit = state["s"] - old.get("s", 0), gradient + decay * before
        used.append(float((move * unit).sum() / unit.square().sum()))
    assert loop.lrs == pytest.approx(used, rel=1e-5)
    assert len(set(loop.lrs)) == 6


def test_unknown_methods_are_named(methods: dict[str, Method]) -> None:
    """A method that is not there is refused with those that are, one without its file with the option."""
    with pytest.raises(
        UnknownNameError, match=r"'nope' is unknown; known: search, .*mlr-snet, .*d-adaptation"
    ):
        choose_methods(list(methods.values()), ["l4", "nope"])
    with pytest.raises(NotGivenError, match="'official' needs --official FOLDER"):
        choose_methods(list(methods.values()), ["official"])
