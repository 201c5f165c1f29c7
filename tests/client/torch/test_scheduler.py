"""The PyTorch adapter."""

from __future__ import annotations

import io
import math
import threading
from typing import Any

import pytest
import torch
from torch import nn

import mlrs
from mlrs.torch import AdvisedLR, describe
from mlrs.torch import loss as _torch_loss
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.runs import open_run


@pytest.fixture
def run(advisor: mlrs.Advisor) -> mlrs.Run:
    """An open run."""
    return open_run(advisor, "a")


class Problem:
    """A least-squares fit: a model, its optimizer, and losses as they come."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, **settings: Any) -> None:
        torch.manual_seed(0)
        self.x, self.y = torch.randn(8, 3), torch.randn(8, 1)
        self.model = nn.DataParallel(nn.Linear(3, 1))
        self.optimizer = optimizer(self.model.parameters(), **{"lr": 0.1, **settings})
        self.used: list[float] = []
        self.losses: list[float] = []
        self.optimizer.register_step_post_hook(
            lambda optimizer, _args, _kwargs: self.used.append(float(optimizer.param_groups[0]["lr"]))
        )

    def loss(self) -> torch.Tensor:
        """Return the loss, with a graph, and note it."""
        self.optimizer.zero_grad()
        loss: torch.Tensor = nn.functional.mse_loss(self.model(self.x), self.y)
        self.losses.append(loss.item())
        return loss

    def train(self, scheduler: AdvisedLR, steps: int) -> None:
        """Train as the adapter's documentation says."""
        for _ in range(steps):
            loss = self.loss()
            scheduler.observe(loss)
            loss.backward()
            self.optimizer.step()
            scheduler.step()


def test_each_update_uses_the_advice_for_its_loss(run: mlrs.Run) -> None:
    """The learning rate of an update is the advice for the loss of that very step, from the first on."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert scheduler.get_last_lr() == [0.1]
    problem.train(scheduler, 10)
    assert problem.used == lr_sequence(problem.losses)
    assert scheduler.get_last_lr() == problem.used[-1:]
    assert scheduler.last_epoch == 10


def test_step_with_a_loss(run: mlrs.Run) -> None:
    """`step(loss)` observes and applies at once, before or after the optimizer's step."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    for before in (True, False, True):
        loss = problem.loss()
        loss.backward()
        if before:
            scheduler.step(loss)
        problem.optimizer.step()
        if not before:
            scheduler.step(loss.item())
        assert scheduler.get_last_lr() == lr_sequence(problem.losses)[-1:]
    assert problem.used[0] == lr_sequence(problem.losses)[0]


def test_skipped_optimizer_step(run: mlrs.Run) -> None:
    """A GradScaler that skips an update leaves the step closed and its advice applied."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for overflow in (False, True, False):
        loss = problem.loss()
        scheduler.observe(loss)
        scaler.scale(loss).backward()
        if overflow:
            next(problem.model.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr] # it has one now
        scaler.step(problem.optimizer)
        scaler.update()
        scheduler.step()
        assert scheduler.get_last_lr() == lr_sequence(problem.losses)[-1:]
    lrs = lr_sequence(problem.losses)
    assert problem.used == [lrs[0], lrs[2]]


def test_accumulation(run: mlrs.Run) -> None:
    """N micro-batches make one observation, their mean; a short last group makes the mean of itself."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run, accumulation_steps=3)
    means = []
    for count in (3, 3, 2):
        micro = [float(index + count) for index in range(count)]
        for value in micro:
            scheduler.observe(value)
        problem.loss().backward()
        problem.optimizer.step()
        scheduler.step()
        means.append(sum(micro) / count)
    assert problem.used == lr_sequence(means)


def test_calls_out_of_order(run: mlrs.Run) -> None:
    """Closing a step without a loss, or observing two, is an error that says what to call."""
    scheduler = AdvisedLR(Problem().optimizer, run)
    with pytest.raises(mlrs.errors.UsageError, match=r"scheduler\.observe"):
        scheduler.step()
    scheduler.observe(1.0)
    with pytest.raises(mlrs.errors.UsageError, match="accumulation_steps"):
        scheduler.observe(1.0)
    scheduler.step()
    assert scheduler.last_epoch == run.next_step == 1


@pytest.mark.parametrize("loss", [torch.ones(2), torch.ones(0), torch.ones((), dtype=torch.complex64), "1"])
def test_losses_that_are_none(run: mlrs.Run, loss: Any) -> None:
    """A loss of several elements is refused with the way to reduce it; nothing is sent."""
    scheduler = AdvisedLR(Problem().optimizer, run)
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        scheduler.observe(loss)
    assert caught.value.field == "loss"
    assert run.next_step == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_losses_of_other_types(run: mlrs.Run, dtype: torch.dtype) -> None:
    """A loss may be a tensor of one element, of any real type."""
    scheduler = AdvisedLR(Problem().optimizer, run)
    scheduler.step(torch.full((1, 1), 2.0, dtype=dtype))
    assert scheduler.get_last_lr() == lr_sequence([2.0])


def test_parameter_groups_keep_their_ratios(run: mlrs.Run) -> None:
    """The group with the largest initial LR gets the advice, the others in proportion; new ones too."""
    weights = [nn.Parameter(torch.ones(1)) for _ in range(4)]
    groups = [{"params": [weights[0]], "lr": 0.01}, {"params": [weights[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD([*groups, {"params": [weights[2]], "lr": 0.0}])
    scheduler = AdvisedLR(optimizer, run)
    scheduler.step(1.0)
    advice = lr_sequence([1.0])[0]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([advice / 10, advice, 0.0])
    optimizer.add_param_group({"params": [weights[3]], "lr": 0.05})
    scheduler.step(2.0)
    advice = lr_sequence([1.0, 2.0])[1]
    expected = pytest.approx([advice / 10, advice, 0.0, advice / 2])
    assert [group["lr"] for group in optimizer.param_groups] == expected
    assert optimizer.param_groups[1]["lr"] == advice


def test_groups_without_a_learning_rate(run: mlrs.Run) -> None:
    """If every initial LR is 0 there are no ratios, and the error says so."""
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="largest initial LR"):
        AdvisedLR(Problem(lr=0.0).optimizer, run)


def test_tensor_learning_rates_are_filled(run: mlrs.Run) -> None:
    """A learning rate that is a tensor stays the same tensor, with the advice in it."""
    tensor = torch.tensor(0.1, dtype=torch.float64)
    problem = Problem(lr=tensor)
    scheduler = AdvisedLR(problem.optimizer, run)
    problem.train(scheduler, 2)
    assert problem.optimizer.param_groups[0]["lr"] is tensor
    assert tensor.item() == lr_sequence(problem.losses)[-1]
    last = scheduler.get_last_lr()[0]
    assert isinstance(last, torch.Tensor)
    assert last is not tensor


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (torch.optim.SGD, {}, ("sgd", 0.0)),
        (torch.optim.SGD, {"momentum": 0.9}, ("momentum", 0.9)),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, ("nesterov", 0.9)),
        (torch.optim.Adam, {"betas": (0.8, 0.99)}, ("adam", 0.8)),
        (torch.optim.AdamW, {}, ("adamw", 0.9)),
        (torch.optim.RMSprop, {}, ("other", None)),
        (torch.optim.SGD, {"momentum": 1.5}, ("momentum", None)),
    ],
)
def test_describing_optimizers(
    kind: Any, settings: dict[str, Any], expected: tuple[str, float | None]
) -> None:
    """The update rule and its momentum are read off the optimizer."""
    description = describe(Problem(kind, **settings).optimizer)
    assert (description["optimizer"], description["momentum"]) == expected


def test_config_is_completed(advisor: mlrs.Advisor) -> None:
    """What the run's config lacks is read off the optimizer; what the caller gave stays."""
    run, named = open_run(advisor, "a"), open_run(advisor, "b", optimizer="other")
    problem = Problem(momentum=0.9)
    AdvisedLR(problem.optimizer, run)
    assert (run.config.optimizer, run.config.momentum) == ("momentum", 0.9)
    AdvisedLR(problem.optimizer, named)
    assert (named.config.optimizer, named.config.momentum) == ("other", 0.9)


def test_config_of_a_run_under_way(advisor: mlrs.Advisor) -> None:
    """A run that began without an optimizer continues without; one that began with another is refused."""
    open_run(advisor, "a").next_lr(0, 1.0)
    AdvisedLR(Problem().optimizer, resumed := open_run(advisor, "a"))
    assert resumed.config.optimizer is None
    open_run(advisor, "b", optimizer="adam").next_lr(0, 1.0)
    with pytest.raises(mlrs.errors.ConfigMismatchError):
        AdvisedLR(Problem().optimizer, open_run(advisor, "b"))


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_checkpoints(advisor: mlrs.Advisor, scheduler_first: bool) -> None:  # noqa: FBT001 # a parameter of the test
    """Training from a checkpoint continues with the LRs of training that never stopped, in either order."""
    whole, run = Problem(torch.optim.Adam), open_run(advisor, "whole")
    whole.train(AdvisedLR(whole.optimizer, run), 12)

    first = Problem(torch.optim.Adam)
    scheduler = AdvisedLR(first.optimizer, open_run(advisor, "parts"))
    first.train(scheduler, 5)
    file = io.BytesIO()
    torch.save([first.model.state_dict(), first.optimizer.state_dict(), scheduler.state_dict()], file)
    first.train(scheduler, 3)  # is lost: the job died after its checkpoint

    file.seek(0)
    model, optimizer, state = torch.load(file, weights_only=True)
    second = Problem(torch.optim.Adam)
    resumed = AdvisedLR(second.optimizer, open_run(advisor, "parts", resume_from=state["step"]))
    second.model.load_state_dict(model)
    if scheduler_first:
        resumed.load_state_dict(state)
        second.optimizer.load_state_dict(optimizer)
    else:
        second.optimizer.load_state_dict(optimizer)
        resumed.load_state_dict(state)
    assert second.optimizer.param_groups[0]["lr"] == first.used[4]
    second.train(resumed, 7)
    assert first.used[:5] + second.used == whole.used


def test_states_that_do_not_fit(advisor: mlrs.Advisor) -> None:
    """A state of a run that is not there, of a later step or of another class is refused; nothing changes."""
    scheduler = AdvisedLR(Problem().optimizer, open_run(advisor, "a"))
    scheduler.step(1.0)
    state = scheduler.state_dict()
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="the run has 1 steps"):
        scheduler.load_state_dict({**state, "step": 2})
    with pytest.raises(mlrs.errors.RunNotFoundError, match="cannot continue at step 1"):
        scheduler.load_state_dict({**state, "run_id": "gone"})
    with pytest.raises(mlrs.errors.InvalidArgumentError, match=r"lacks .*run_id"):
        scheduler.load_state_dict({"last_epoch": 3})
    scheduler.step(0.9)
    assert scheduler.get_last_lr() == [lr_sequence([1.0, 0.9])[1]]


def test_a_state_brings_its_run(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A new script that loads a checkpoint continues as the checkpoint's run, which goes back to its step."""
    first = AdvisedLR(Problem().optimizer, advisor.run("task"))
    for loss in (2.0, 1.0):
        first.step(loss)
    state = first.state_dict()
    first.step(0.5)  # after the checkpoint, and before the script died
    again = AdvisedLR(Problem().optimizer, advisor.run("task"))
    again.load_state_dict(state)
    assert again.state_dict() == state
    again.step(0.7)
    assert [run.losses for run in daemon.runs.values()] == [[2.0, 1.0, 0.7]]


def test_a_state_of_before_the_first_step(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A checkpoint that was taken before the first step begins its run anew, opened before or not."""
    fresh = AdvisedLR(Problem().optimizer, advisor.run("task"))
    state = fresh.state_dict()
    fresh.load_state_dict(state)
    assert not daemon.runs
    again = AdvisedLR(Problem().optimizer, advisor.run("task"))
    again.load_state_dict(state)
    again.step(2.0)
    assert {run_id: run.losses for run_id, run in daemon.runs.items()} == {state["run_id"]: [2.0]}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"base_lrs": [0.1, 0.1, 0.1, 0.1, 0.1]}, "5 parameter groups"),
        ({"base_lrs": ["fast"]}, "not numbers"),
        ({"base_lrs": None}, "not numbers"),
        ({"last_lr": "fast"}, "last_lr must be a real number"),
        ({"run_id": ""}, "run_id must be"),
        ({"step": -1}, "step must be"),
        ({"validation_loss": "low"}, "validation_loss must be"),
    ],
)
def test_damaged_states_change_nothing(run: mlrs.Run, damage: dict[str, Any], message: str) -> None:
    """A state whose learning rates make no sense is refused, and the scheduler stays as it was."""
    scheduler = AdvisedLR(Problem().optimizer, run)
    before = scheduler.state_dict()
    with pytest.raises(mlrs.errors.InvalidArgumentError, match=message):
        scheduler.load_state_dict({**before, **damage})
    assert scheduler.state_dict() == before
    scheduler.step(1.0)


def test_state_is_plain(run: mlrs.Run) -> None:
    """A state holds numbers, strings and lists of them."""
    scheduler = AdvisedLR(Problem(lr=torch.tensor(0.5)).optimizer, run)
    scheduler.step(1.0)
    assert scheduler.state_dict() == {
        "run_id": "a",
        "step": 1,
        "last_lr": lr_sequence([1.0])[0],
        "base_lrs": [0.5],
        "restored": False,
    }


def test_a_validation_loss_is_part_of_the_state(run: mlrs.Run, daemon: FakeDaemon) -> None:
    """One that no observation has taken along yet is told again by a training that continues from there."""
    scheduler = AdvisedLR(Problem().optimizer, run)
    scheduler.step(1.0)
    scheduler.validate(torch.tensor(0.5))
    saved = scheduler.state_dict()
    assert saved["validation_loss"] == 0.5
    scheduler.step(1.0)
    assert "validation_loss" not in scheduler.state_dict()
    scheduler.load_state_dict({**saved, "validation_loss": None})
    scheduler.step(2.0)
    assert 1 not in daemon.runs["a"].extras or daemon.runs["a"].extras[1].validation is None
    scheduler.load_state_dict(saved)
    scheduler.step(2.0)
    assert daemon.runs["a"].extras[1].validation == (1, 0.5)


def test_failure_can_be_tried_again(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """An optimizer step that got no advice in time has not updated, and can be called again."""
    problem = Problem()
    run = open_run(advisor, "a", on_unavailable="error")
    scheduler = AdvisedLR(problem.optimizer, run)
    daemon.may_answer.clear()
    loss = problem.loss()
    scheduler.observe(loss)
    loss.backward()
    run._connection.timeout_s = 0.05
    with pytest.raises(mlrs.errors.DeadlineExceededError):
        problem.optimizer.step()
    assert problem.used == []
    run._connection.timeout_s = 10.0
    daemon.may_answer.set()
    problem.optimizer.step()
    scheduler.step()
    assert problem.used == lr_sequence(problem.losses)


def test_dropped_scheduler_lets_go(advisor: mlrs.Advisor) -> None:
    """A scheduler that nobody holds any more does not touch the optimizer's steps."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, open_run(advisor, "a"))
    scheduler.observe(problem.loss())
    del scheduler
    problem.optimizer.step()
    assert problem.used == [0.1]


def test_what_is_no_run(run: mlrs.Run) -> None:
    """A wrong run or a wrong number of accumulation steps is refused by name."""
    optimizer = Problem().optimizer
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="run"):
        AdvisedLR(optimizer, 5)  # type: ignore[arg-type] # on purpose
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="accumulation_steps"):
        AdvisedLR(optimizer, run, accumulation_steps=0)


def test_lagged_updates_use_the_advice_of_the_step_before(run: mlrs.Run) -> None:
    """A lagged loop updates with the newest advice of the steps before, the first step with its own."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run, lagged=True)
    for _ in range(8):
        problem.train(scheduler, 1)
        while run._ledger.backlog.last_unanswered() is not None:
            threading.Event().wait(0.001)
    lrs = lr_sequence(problem.losses)
    assert problem.used == [lrs[0], *lrs[:-1]]


@pytest.mark.parametrize("lagged", [False, True])
def test_losses_on_a_device_are_read_by_another_thread(
    run: mlrs.Run, monkeypatch: pytest.MonkeyPatch, *, lagged: bool
) -> None:
    """While a device computes the loss, `observe` returns; the loss is sent once it is there, in order."""
    problem, computed = Problem(), threading.Event()
    value = _torch_loss.Loss.value

    def wait(loss: _torch_loss.Loss) -> float:
        assert threading.current_thread().name.startswith("mlrs-loss")
        assert computed.wait(10)
        return value(loss)

    monkeypatch.setattr(_torch_loss, "_is_on_host", lambda _: False)
    monkeypatch.setattr(_torch_loss.Loss, "value", wait)
    scheduler = AdvisedLR(problem.optimizer, run, lagged=lagged, accumulation_steps=2)
    for step in range(6):
        computed.clear()
        losses = [problem.loss(), problem.loss()]
        for loss in losses:
            scheduler.observe(loss)
            loss.backward()
        assert run.next_step == step
        computed.set()
        problem.optimizer.step()
        scheduler.step()
        while run.next_step == step or run._ledger.backlog.last_unanswered() is not None:
            threading.Event().wait(0.001)
    means = [sum(problem.losses[at : at + 2]) / 2 for at in range(0, 12, 2)]
    lrs = lr_sequence(means)
    assert problem.used == pytest.approx([lrs[0], *lrs[:-1]] if lagged else lrs, rel=1e-6)


def test_a_bad_loss_on_a_device(run: mlrs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is not one number is refused at once; what fails later raises where it is waited for."""
    monkeypatch.setattr(_torch_loss, "_is_on_host", lambda _: False)
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="reduce it first"):
        scheduler.observe(torch.zeros(2))
    run.detach()
    scheduler.observe(problem.loss())
    with pytest.raises(mlrs.errors.ClosedError):
        problem.optimizer.step()


def test_a_first_step_that_came_late_can_be_asked_for_again(
    advisor: mlrs.Advisor, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first advice of a lagged loop is late, the update can be tried again, and then has it."""
    monkeypatch.setattr(_torch_loss, "_is_on_host", lambda _: False)
    problem = Problem()
    run = open_run(advisor, "a", on_unavailable="error")
    scheduler = AdvisedLR(problem.optimizer, run, lagged=True)
    daemon.may_answer.clear()
    loss = problem.loss()
    scheduler.observe(loss)
    loss.backward()
    monkeypatch.setattr(run._connection, "timeout_s", 0.1)
    with pytest.raises(mlrs.errors.DeadlineExceededError):
        problem.optimizer.step()
    daemon.may_answer.set()
    monkeypatch.setattr(run._connection, "timeout_s", 10.0)
    problem.optimizer.step()
    assert problem.used == lr_sequence(problem.losses)
