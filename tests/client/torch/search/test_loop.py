"""The search of the PyTorch adapter: what trials see, and that they leave no trace."""

from __future__ import annotations

import gc
import math
import signal
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import mlrs
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.torch import AdvisedLR, suggest
from mlrs.torch.search import batches as _batches
from tests.client.fake_daemon import TRIAL_STEPS, TRIED, FakeDaemon, lr_sequence
from tests.client.torch.search.trainings import OPTIMIZERS, Training, alive, own_generators, same

RATES = [rate * (1.0 - update / TRIAL_STEPS) for rate in TRIED for update in range(TRIAL_STEPS)]
"""The learning rates of all updates of the three trials."""
READ = 4 + TRIAL_STEPS
"""How many batches a search reads: those that trials are compared on, and one for each update."""


@pytest.fixture(autouse=True)
def _generators() -> Iterator[None]:
    with own_generators():
        yield


@pytest.fixture
def run(advisor: mlrs.Advisor) -> mlrs.Run:
    """A run that a search is worth it for."""
    return advisor.run("task", id="a", horizon=1000)


def dataset() -> TensorDataset:
    """Return rows of small numbers, so that no trial diverges."""
    chance = torch.Generator().manual_seed(0)
    return TensorDataset(
        0.1 * torch.randn(80, 3, generator=chance), 0.1 * torch.randn(80, 2, generator=chance)
    )


def loss_fn(model: Any, batch: Any) -> torch.Tensor:
    """Return the mean squared error of a batch."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


LOADERS: dict[str, Callable[[], Iterable[Any]]] = {
    "shuffled": lambda: DataLoader(dataset(), 4, shuffle=True),
    "own generator": lambda: DataLoader(
        dataset(), 4, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "sampler's generator": lambda: DataLoader(
        dataset(), 4, sampler=RandomSampler(dataset(), generator=torch.Generator().manual_seed(3))
    ),
    "batch sampler's generator": lambda: DataLoader(
        dataset(),
        batch_sampler=BatchSampler(
            RandomSampler(dataset(), generator=torch.Generator().manual_seed(3)), 4, drop_last=True
        ),
    ),
    "workers": lambda: DataLoader(dataset(), 4, shuffle=True, num_workers=1),
}


def plain(seed: int = 0) -> tuple[nn.Linear, torch.optim.SGD]:
    """Return a layer and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def batches(count: int = READ) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return some different batches."""
    inputs, targets = dataset().tensors
    return [(inputs[4 * index : 4 * index + 4], targets[4 * index : 4 * index + 4]) for index in range(count)]


def steady(model: Any, batch: Any) -> torch.Tensor:
    """Return a loss under which no trial counts as diverged."""
    return loss_fn(model, batch) + 10.0


def failing(error: Callable[[], Any], call: int) -> Callable[[Any, Any], torch.Tensor]:
    """Return a `loss_fn` in one of whose calls something happens."""
    calls = iter(range(10**6))

    def fails(model: Any, batch: Any) -> torch.Tensor:
        loss = steady(model, batch)
        if next(calls) == call:
            error()
        return loss

    return fails


def raise_error() -> None:
    """Raise an error of the user's code."""
    raise ValueError("no such label")


def interrupt() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


# --------------------------------------------------------------------------------------- no trace


@pytest.mark.parametrize("save_to", ["device", "cpu"])
@pytest.mark.parametrize("kind", [*OPTIMIZERS][:-1])
def test_a_search_leaves_no_trace(run: mlrs.Run, kind: str, save_to: Any) -> None:
    """Weights, buffers, gradients, optimizer and generators are as before, to the bit."""
    training = Training(kind)
    scheduler = AdvisedLR(training.optimizer, run)
    bits = training.bits()
    result = scheduler.search(training.model, loss_fn, LOADERS["shuffled"](), save_to=save_to)
    assert result.learning_rate is not None
    assert len(result.trials) == len(TRIED)
    assert same(training.bits(), bits)
    assert dict(training.optimizer.state) == {}
    assert scheduler.get_last_lr() == [
        pytest.approx(group["lr"]) for group in training.optimizer.param_groups
    ]


@pytest.mark.parametrize(("happens", "error"), [(raise_error, ValueError), (interrupt, KeyboardInterrupt)])
@pytest.mark.parametrize("call", [0, 3, 5, 8, 12])
def test_a_search_that_fails_leaves_no_trace(
    run: mlrs.Run, happens: Callable[[], Any], error: type[BaseException], call: int
) -> None:
    """An exception in `loss_fn`, and Ctrl-C, in a step or a comparison, put everything back, too."""
    training = Training("adam")
    scheduler = AdvisedLR(training.optimizer, run)
    bits = training.bits()
    with pytest.raises(error):
        scheduler.search(training.model, failing(happens, call), LOADERS["own generator"]())
    assert same(training.bits(), bits)
    scheduler.observe(1.0)
    training.step()
    assert scheduler.optimizer.param_groups[0]["lr"] == lr_sequence([1.0])[0]


@pytest.mark.parametrize("kind", LOADERS)
def test_the_loop_draws_the_batches_that_it_would_have_drawn(run: mlrs.Run, kind: str) -> None:
    """A shuffled loader gives the same batches as without a search, whoever owns the generator."""
    model, optimizer = plain()
    scheduler = AdvisedLR(optimizer, run)
    state = torch.get_rng_state()
    expected = list(LOADERS[kind]())
    torch.set_rng_state(state)
    loader = LOADERS[kind]()
    scheduler.search(model, loss_fn, loader)
    assert same(list(loader), expected)


@pytest.mark.parametrize("kind", ["momentum", "nadam"])
def test_training_goes_on_as_without_a_search(advisor: mlrs.Advisor, kind: str) -> None:
    """A training after a search has, to the bit, the losses of one without, as the advice is the same."""
    trained = []
    for searches in (False, True):
        training = Training(kind)
        loader = LOADERS["shuffled"]()
        scheduler = AdvisedLR(training.optimizer, advisor.run("task", horizon=1000))
        if searches:
            assert scheduler.search(training.model, loss_fn, loader).trials
        losses = []
        for batch in loader:
            training.optimizer.zero_grad()
            loss = loss_fn(training.model, batch)
            scheduler.observe(loss)
            loss.backward()
            training.optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        trained.append([losses, training.bits()])
    assert same(*trained)


def test_a_loader_that_cannot_begin(run: mlrs.Run) -> None:
    """A loader that draws a number and then fails leaves no trace, either."""

    class Broken:
        def __iter__(self) -> Iterator[Any]:
            torch.rand(1)
            raise OSError("no such file")

    model, optimizer = plain()
    scheduler = AdvisedLR(optimizer, run)
    state = torch.get_rng_state()
    with pytest.raises(OSError, match="no such file"):
        scheduler.search(model, loss_fn, Broken())
    assert torch.equal(torch.get_rng_state(), state)


def test_no_copy_is_kept(run: mlrs.Run) -> None:
    """After a search no copy of a weight, and no batch, is alive, without help of the garbage collector."""
    model = nn.Linear(37, 41)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = AdvisedLR(optimizer, run)

    shapes = ((41, 37), (5, 37))
    most = 0

    def counting(model: Any, batch: Any) -> torch.Tensor:
        nonlocal most
        most = max(most, alive(*shapes))
        return model(batch).square().mean()

    gc.collect()
    gc.disable()
    try:
        before = alive(*shapes)
        assert scheduler.search(model, counting, (torch.randn(5, 37) for _ in range(READ))).trials
        assert alive(*shapes) == before
    finally:
        gc.enable()
    assert most >= before + 3 + READ  # a copy, two moments, and the batches


# --------------------------------------------------------------------------------------- the trials


def test_trials_have_the_rates_asked_for(run: mlrs.Run, daemon: FakeDaemon) -> None:
    """Trials set the learning rates that the daemon asked for; nothing is observed, and no advice set."""
    model, optimizer = plain()
    scheduler = AdvisedLR(optimizer, run)
    used: list[float] = []
    optimizer.register_step_post_hook(lambda *_: used.append(optimizer.param_groups[0]["lr"]))
    result = scheduler.search(model, loss_fn, batches())
    assert used == RATES
    assert (daemon.entries, daemon.runs["a"].losses) == (0, [])
    assert result.steps == len(RATES)
    assert run.config.optimizer == "sgd"
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("is_tensor", [False, True])
def test_parameter_groups_keep_their_ratios(run: mlrs.Run, *, is_tensor: bool) -> None:
    """The group with the largest rate has that of the trial, and the others keep their ratio to it."""
    model, _ = plain()
    rates = [torch.tensor(rate, dtype=torch.float64) if is_tensor else rate for rate in (0.01, 0.04)]
    optimizer = torch.optim.Adam(
        [{"params": [model.bias], "lr": rates[0]}, {"params": [model.weight], "lr": rates[1]}]
    )
    scheduler = AdvisedLR(optimizer, run)
    used: list[list[float]] = []
    optimizer.register_step_post_hook(
        lambda *_: used.append([float(group["lr"]) for group in optimizer.param_groups])
    )
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.02})
    scheduler.search(model, loss_fn, batches())
    assert used == [pytest.approx([rate / 4, rate, rate / 2]) for rate in RATES]
    for group, rate in zip(optimizer.param_groups[:2], rates, strict=True):
        assert group["lr"] is rate
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.01, 0.04, 0.02]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.01, 0.04, 0.02]


def test_all_trials_see_the_same(run: mlrs.Run) -> None:
    """Each trial begins from the same weights, on the same batches, with the same masks of dropout."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    masks: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda _module, _inputs, output: masks.append(output == 0.0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[tuple[torch.Tensor, float]] = []

    def noting(model: Any, batch: Any) -> torch.Tensor:
        loss = loss_fn(model, batch)
        seen.append((batch[0], loss.item()))
        return loss

    AdvisedLR(optimizer, run).search(model, noting, LOADERS["shuffled"]())
    trials = [slice(READ * trial, READ * (trial + 1)) for trial in range(3)]
    assert len(masks) == len(seen) == 3 * READ
    for trial in trials[1:]:
        assert all(map(torch.equal, masks[trial], masks[trials[0]]))
        assert all(now[0] is before[0] for now, before in zip(seen[trial], seen[trials[0]], strict=True))
    assert len({seen[trial.start][1] for trial in trials}) == 1
    assert len({seen[trial.start + 1][1] for trial in trials}) == 3
    drawn = {tuple(batch.flatten().tolist()) for batch, _ in seen[trials[0]]}
    assert len(drawn) == READ  # those of updates are none of those that trials are compared on


def test_the_loss_of_a_trial(run: mlrs.Run, daemon: FakeDaemon) -> None:
    """A trial is a training with falling rates, and its loss the mean over the first four batches."""
    model, optimizer = plain()
    result = AdvisedLR(optimizer, run).search(model, loss_fn, batches())
    for number, trial in enumerate(result.trials):
        other, descent = plain()
        for update, batch in enumerate(batches()[4:]):
            descent.param_groups[0]["lr"] = RATES[TRIAL_STEPS * number + update]
            descent.zero_grad()
            loss_fn(other, batch).backward()
            descent.step()
        losses = [loss_fn(other, batch).item() for batch in batches()[:4]]
        assert trial.loss == math.fsum(losses) / 4
    best = min(result.trials, key=lambda trial: trial.loss)
    assert result.learning_rate == 0.5 * best.learning_rate
    assert daemon.runs["a"].config.found.learning_rate == result.learning_rate


def test_the_loss_at_the_start(run: mlrs.Run, daemon: FakeDaemon) -> None:
    """A trial of no steps is the mean loss of the first four batches before any update."""
    daemon.trials.insert(0, (TRIED[0], 0))
    model, optimizer = plain()
    result = AdvisedLR(optimizer, run).search(model, loss_fn, batches())
    losses = [loss_fn(plain()[0], batch).item() for batch in batches()[:4]]
    assert (result.trials[0].steps, result.trials[0].loss) == (0, math.fsum(losses) / 4)
    assert len(result.trials) == 4


def test_a_step_of_ones_own(run: mlrs.Run) -> None:
    """`step_fn` makes the whole step, here of two micro-batches, clipped; `loss_fn` only compares trials."""
    training = Training("adamw-fused")
    scheduler = AdvisedLR(training.optimizer, run)
    used: list[float] = []
    compared: list[bool] = []

    def step_fn(model: Any, batch: Any) -> float:
        training.optimizer.zero_grad()
        total = 0.0
        for half in (slice(2), slice(2, 4)):
            loss = 0.5 * steady(model, (batch[0][half], batch[1][half]))
            loss.backward()
            total += loss.item()
        assert float(nn.utils.clip_grad_norm_(model.parameters(), 0.01)) > 0.0
        training.optimizer.step()
        used.append(training.optimizer.param_groups[0]["lr"])
        return total

    def comparing(model: Any, batch: Any) -> torch.Tensor:
        compared.append(torch.is_grad_enabled())
        return loss_fn(model, batch)

    bits = training.bits()
    scheduler.search(training.model, comparing, batches(), step_fn=step_fn)
    assert used == RATES
    assert compared == [False] * 12
    assert same(training.bits(), bits)


@pytest.mark.parametrize("overflows", [False, True])
def test_a_scaler(run: mlrs.Run, *, overflows: bool) -> None:
    """Trials scale their losses, skip an update that overflows, and leave the scale as it was."""
    training = Training("momentum", scaled=True)
    assert training.scaler is not None
    scaler, scales = training.scaler, []

    def noting(model: Any, batch: Any) -> torch.Tensor:
        loss = loss_fn(model, batch)
        if torch.is_grad_enabled():
            scales.append(scaler.get_scale())
            loss.register_hook(lambda gradient: gradient * math.inf if overflows else gradient)
        return loss

    scheduler = AdvisedLR(training.optimizer, run)
    bits = training.bits()
    result = scheduler.search(training.model, noting, batches(), scaler=scaler)
    assert scales[:5] == scales[5:10] == scales[10:]
    assert scales[0] == 2.0**10
    assert scales[4] == (2.0**6 if overflows else 2.0**12)
    assert len({trial.loss for trial in result.trials}) == (1 if overflows else 3)
    assert same(training.bits(), bits)


def test_modes_stay(run: mlrs.Run) -> None:
    """A model in evaluation mode is tried in it, and stays in it."""
    training = Training()
    training.model.eval()
    scheduler = AdvisedLR(training.optimizer, run)
    bits, modes = training.bits(), set[bool]()

    def noting(model: Any, batch: Any) -> torch.Tensor:
        modes.add(model.training)
        return loss_fn(model, batch)

    scheduler.search(training.model, noting, batches())
    assert modes == {False}
    assert same(training.bits(), bits)


# --------------------------------------------------------------------------------------- batches


class Movable:
    """A batch that moves by itself."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def to(self, device: torch.device) -> Movable:
        """Return it on a device."""
        assert device == torch.device("cpu")
        return self

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index]


class Encoding(UserDict[Any, Any]):
    """A mapping that moves by itself, as those of tokenizers."""

    def to(self, device: torch.device) -> Encoding:
        """Return it on a device."""
        return Encoding({name: value.to(device) for name, value in self.data.items()})


class Graph(NamedTuple):
    """A tuple that moves by itself, as packed sequences."""

    inputs: torch.Tensor
    targets: torch.Tensor
    is_moved: bool = False

    def to(self, device: torch.device) -> Graph:
        """Return it on a device."""
        return Graph(self.inputs.to(device), self.targets.to(device), is_moved=True)


class Pair(NamedTuple):
    """What loaders hand out where a dataset has named tuples."""

    inputs: torch.Tensor
    targets: torch.Tensor


KINDS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "tuple": lambda inputs, targets: (inputs, targets),
    "list": lambda inputs, targets: [inputs, targets],
    "dict": lambda inputs, targets: {0: inputs, 1: targets},
    "named tuple": Pair,
    "graph": Graph,
    "nested": lambda inputs, targets: (inputs, targets, {"names": ["a"], "more": [(inputs,)], "none": None}),
    "movable": lambda inputs, targets: Movable((inputs, targets)),
    "mapping": lambda inputs, targets: Encoding({0: inputs, 1: targets}),
    "packed": lambda inputs, targets: (inputs, targets, pack_sequence([inputs[:3], inputs[:2]])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_all_kinds(run: mlrs.Run, kind: str) -> None:
    """Batches reach `loss_fn` as the loader gave them, whatever they are made of."""
    model, optimizer = plain()
    made = [KINDS[kind](*batch) for batch in batches()]

    def noting(model: Any, batch: Any) -> torch.Tensor:
        assert type(batch) is type(made[0])
        assert kind != "graph" or batch.is_moved
        if kind in {"nested", "packed"}:
            assert same(batch[2], made[0][2]) == torch.equal(batch[0], made[0][0])
        return loss_fn(model, batch)

    assert AdvisedLR(optimizer, run).search(model, noting, made).trials


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_batches(run: mlrs.Run, daemon: FakeDaemon, count: int) -> None:
    """Fewer than five batches are an error that names them, and leaves no trace."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, run)
    bits = training.bits()
    with pytest.raises(
        InvalidArgumentError, match=rf"needs 5 batches at least, and this gave {count}"
    ) as caught:
        scheduler.search(training.model, loss_fn, iter(batches(count)))
    assert caught.value.field == "batches"
    assert same(training.bits(), bits)
    assert daemon.runs["a"].searches == []


@pytest.mark.parametrize(("count", "used"), [(5, [4] * 5), (6, [4, 5, 4, 5, 4]), (9, [4, 5, 6, 7, 8])])
def test_few_batches_are_repeated(run: mlrs.Run, count: int, used: list[int]) -> None:
    """Updates repeat the batches that there are, without those that trials are compared on."""
    given, seen = batches(count), []
    model, optimizer = plain()

    def noting(model: Any, batch: Any) -> torch.Tensor:
        seen.append(next(index for index, one in enumerate(given) if one[0] is batch[0]))
        return loss_fn(model, batch)

    AdvisedLR(optimizer, run).search(model, noting, given)
    assert seen == [*used, 0, 1, 2, 3] * 3


def test_no_more_than_needed_is_read(run: mlrs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an endless generator only what trials need is read, once, and never more than a limit."""
    model, optimizer = plain()
    read: list[int] = []

    def endless() -> Iterator[Any]:
        while True:
            read.append(len(read))
            yield batches()[read[-1] % READ]

    AdvisedLR(optimizer, run).search(model, loss_fn, endless())
    assert len(read) == READ
    read.clear()
    monkeypatch.setattr(_batches, "MOST_BATCHES", 7)
    model, optimizer = plain(seed=1)
    assert AdvisedLR(optimizer, run).search(model, loss_fn, endless()).learning_rate is not None
    assert len(read) == 7


# ----------------------------------------------------------------------------------- when it is called


def unreached(*_: Any) -> Any:
    """Be a function that no search calls."""
    raise AssertionError


def unread() -> Iterator[Any]:
    """Be batches that no search reads."""
    raise AssertionError
    yield


def test_after_a_loss(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A search after the first observation is an error, whether the step is open or micro-batches wait."""
    model, optimizer = plain()
    for steps in (1, 2):
        scheduler = AdvisedLR(optimizer, advisor.run("task", horizon=1000), accumulation_steps=steps)
        scheduler.observe(1.0)
        with pytest.raises(UsageError, match="a loss of step 0 was observed already"):
            scheduler.search(model, unreached, unread())
    assert daemon.asked == []


def test_after_a_step(run: mlrs.Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Once steps were made there is no search, which the result and one line on standard error say."""
    model, optimizer = plain()
    scheduler = AdvisedLR(optimizer, run)
    scheduler.step(1.0)
    result = scheduler.search(model, unreached, unread())
    assert (result.learning_rate, result.why_not) == (None, "the run is at step 1")
    assert capfd.readouterr().err == "mlrs: run 'a' no search: the run is at step 1\n"


def test_of_a_resumed_training(advisor: mlrs.Advisor, run: mlrs.Run) -> None:
    """A scheduler that continues from a checkpoint makes no search, and says what its run began at."""
    model, optimizer = plain()
    scheduler = AdvisedLR(optimizer, run)
    found = scheduler.search(model, loss_fn, batches())
    for _ in range(3):
        scheduler.step(1.0)
    state = scheduler.state_dict()
    resumed = AdvisedLR(plain()[1], advisor.run("task", horizon=1000))
    resumed.load_state_dict(state)
    result = resumed.search(model, unreached, unread())
    assert result.learning_rate is None
    began = f"and began at a learning rate of {found.learning_rate:.3g}, which a search found"
    assert result.why_not == f"the run is at step 3, {began}"
    resumed.step(1.0)
    assert resumed.last_epoch == 4


def test_of_a_checkpoint_from_before_the_first_step(advisor: mlrs.Advisor, run: mlrs.Run) -> None:
    """A checkpoint of step 0 may be searched from."""
    model, optimizer = plain()
    state = AdvisedLR(optimizer, run.open()).state_dict()
    resumed = AdvisedLR(optimizer, advisor.run("task", horizon=1000))
    resumed.load_state_dict(state)
    assert len(resumed.search(model, loss_fn, batches()).trials) == 3


def test_without_a_horizon(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """Where a search would not pay, nothing is saved, read or computed."""
    model, optimizer = plain()
    scheduler = AdvisedLR(optimizer, advisor.run("task"))
    result = scheduler.search(model, unreached, unread())
    assert "no horizon" in result.why_not
    assert daemon.opened == 0


def test_after_detaching(run: mlrs.Run) -> None:
    """A scheduler that was detached makes no search."""
    model, optimizer = plain()
    scheduler = AdvisedLR(optimizer, run)
    scheduler.detach()
    with pytest.raises(UsageError, match="detach"):
        scheduler.search(model, unreached, unread())


@pytest.mark.parametrize("method", ["observe", "step"])
def test_a_step_that_observes(run: mlrs.Run, daemon: FakeDaemon, method: str) -> None:
    """A `step_fn` that calls the scheduler is told not to, and its losses are no observations."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, run)
    bits = training.bits()

    def step_fn(model: Any, batch: Any) -> Any:
        loss = loss_fn(model, batch)
        getattr(scheduler, method)(loss)
        return loss

    with pytest.raises(
        UsageError, match=f"{method} was called in a trial of a search; step_fn returns the loss"
    ):
        scheduler.search(training.model, loss_fn, batches(), step_fn=step_fn)
    assert same(training.bits(), bits)
    assert (daemon.entries, daemon.runs["a"].losses) == (0, [])
    scheduler.step(1.0)
    assert daemon.runs["a"].losses == [1.0]


# ------------------------------------------------------------------------------------ wrong arguments


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"save_to": "disk"}, "save_to"),
        ({"also_save": nn.Linear(2, 2)}, "also_save"),
        ({"also_save": nn.Sequential(nn.Linear(2, 2))}, "also_save"),
        ({"also_save": torch.zeros(2)}, "also_save"),
        ({"also_save": 5}, "also_save"),
        ({"also_save": ["ema"]}, "also_save"),
        ({"step_fn": lambda _model, _batch: None}, "step_fn"),
        ({"step_fn": lambda _model, _batch: torch.zeros(2)}, "step_fn"),
        ({"loss_fn": lambda _model, _batch: 1.0}, "loss_fn"),
        ({"loss_fn": lambda _model, _batch: None}, "loss_fn"),
        ({"loss_fn": lambda model, batch: model(batch[0]) - batch[1]}, "loss_fn"),
        ({"step_fn": lambda _model, _batch: 1.0, "loss_fn": lambda _model, _batch: "low"}, "loss_fn"),
    ],
)
def test_wrong_arguments(run: mlrs.Run, wrong: dict[str, Any], field: str) -> None:
    """What cannot be used is named, and leaves no trace."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, run)
    bits = training.bits()
    arguments: dict[str, Any] = {"model": training.model, "loss_fn": loss_fn, "batches": batches()}
    with pytest.raises(InvalidArgumentError, match=field) as caught:
        scheduler.search(**{**arguments, **wrong})
    assert caught.value.field == field
    assert same(training.bits(), bits)


# ---------------------------------------------------------------------------------- the name of the start


def name_of(
    advisor: mlrs.Advisor,
    daemon: FakeDaemon,
    *,
    seed: int = 0,
    first: int = 0,
    change: Callable[[Training], object] = lambda _: None,
    kind: Callable[[torch.Tensor, torch.Tensor], Any] = KINDS["tuple"],
) -> str:
    """Return the name that a search gives to its start."""
    training = Training("adam")
    torch.manual_seed(seed)
    for part in training.model:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    change(training)
    given = batches(READ + 1)[first:]
    run = advisor.run("task", horizon=1000)
    AdvisedLR(training.optimizer, run).search(
        training.model, loss_fn, [kind(*batch) for batch in given[:READ]]
    )
    return daemon.runs[run.id].searches[0].start


def swap(training: Training) -> None:
    """Let two numbers of a weight change places."""
    with torch.no_grad():
        training.model[0].weight[0] = training.model[0].weight[0].flip(0)


def test_a_start_has_one_name(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """The same state and batches have the same name, in any process; it fits the contract."""
    name = name_of(advisor, daemon)
    assert name_of(advisor, daemon) == name
    assert 1 <= len(name) <= 64
    assert name.isalnum()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"first": 1},
        {"change": swap},
        {"change": lambda training: training.model[1].running_mean.add_(1e-6)},
        {"change": lambda training: training.step()},
        {"change": lambda training: nn.init.constant_(training.model[0].bias, math.nan)},
    ],
    ids=["seed", "batches", "permuted", "buffer", "trained", "not finite"],
)
def test_another_start_has_another_name(
    advisor: mlrs.Advisor, daemon: FakeDaemon, other: dict[str, Any]
) -> None:
    """Another seed, another batch, a permuted weight, a buffer, or a step before: each is another start."""
    assert name_of(advisor, daemon, **other) != name_of(advisor, daemon)


@pytest.mark.parametrize("kind", ["dict", "mapping", "nested", "named tuple"])
def test_batches_of_all_kinds_are_named(advisor: mlrs.Advisor, daemon: FakeDaemon, kind: str) -> None:
    """Other batches have another name, whatever holds their tensors."""
    one, other = (name_of(advisor, daemon, first=first, kind=KINDS[kind]) for first in (0, 1))
    assert one != other


def test_large_tensors_are_named_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums that names are made of are those of the whole tensor, within rounding."""
    tensor = torch.randn(7, 11, generator=torch.Generator().manual_seed(0)).t()
    whole = _batches.sums(tensor)
    monkeypatch.setattr(_batches, "CHUNK", 10)
    assert _batches.sums(tensor) == pytest.approx(whole)
    waved = sum(number * math.sin(index) for index, number in enumerate(tensor.flatten().tolist()))
    assert whole == pytest.approx([float(tensor.sum()), waved], rel=1e-5)


def test_a_search_is_continued_after_a_crash(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A script that is killed in the middle, and begins again with the same seed, makes the other trials."""
    made: list[int] = []
    for call in (READ + 2, -1):
        training = Training("adam")
        run = advisor.run("task", id="a", horizon=1000, on_existing="resume")
        scheduler = AdvisedLR(training.optimizer, run)
        optimizer = training.optimizer
        optimizer.register_step_post_hook(lambda *_: made.append(1))
        try:
            result = scheduler.search(training.model, failing(interrupt, call), LOADERS["shuffled"]())
        except KeyboardInterrupt:
            made.clear()
    assert len(made) == 2 * TRIAL_STEPS
    assert len(result.trials) == 3
    assert len(daemon.runs["a"].searches) == 1


# ------------------------------------------------------------------------------ the learning rate alone


def test_suggest(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """`suggest` finds a learning rate for a loop without a scheduler, leaves no trace, and no run."""
    training = Training("adam")
    optimizer = training.optimizer
    optimizer.param_groups[1]["lr"] = 0.002
    used: list[list[float]] = []
    optimizer.register_step_post_hook(
        lambda *_: used.append([group["lr"] for group in optimizer.param_groups])
    )
    bits = training.bits()
    loader = LOADERS["own generator"]()
    expected = list(LOADERS["own generator"]())
    result = suggest(training.model, optimizer, loss_fn, loader, horizon=100, advisor=advisor)
    assert result.learning_rate is not None
    assert used == [pytest.approx([rate, 0.2 * rate]) for rate in RATES]
    assert same(training.bits(), bits)
    assert same(list(loader), expected)
    assert daemon.runs == {}


def test_suggest_that_is_interrupted(daemon: FakeDaemon) -> None:
    """Ctrl-C puts everything back, and leaves no run, either; the daemon may be given by its address."""
    training = Training("adam")
    bits = training.bits()
    with pytest.raises(KeyboardInterrupt):
        suggest(
            training.model,
            training.optimizer,
            failing(interrupt, 7),
            batches(),
            horizon=1000,
            advisor=daemon.target,
        )
    assert same(training.bits(), bits)
    assert daemon.runs == {}
