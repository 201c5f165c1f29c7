"""Meta mode over a real socket, in both flavours of the client: updates, breaks, absences, gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs import Meta
from mlrs.types import MetaOutcome
from mlrs_proto import v1 as pb
from tests.client.conftest import done, until
from tests.client.fake_daemon import FakeDaemon, adapted_lr, lr_sequence
from tests.support.runs import opened


async def test_an_update(either: Any) -> None:
    """An update is answered with the learning rate of its step, and tells from the next one on."""
    run = await opened(either, "a", meta=True)
    assert await done(run.next_lr(0, 1.0)) == lr_sequence([1.0])[0]
    adaptation = await done(run.adapt(0, 2.0, validation_loss=0.5))
    assert adaptation.learning_rate == adapted_lr([1.0], {0: 2.0}, 0)
    assert (adaptation.step, adaptation.updates, adaptation.outcome) == (0, 1, MetaOutcome.APPLIED)
    assert await done(run.next_lr(1, 1.0)) == lr_sequence([1.0, 1.0], {0: 2.0})[1]
    assert await done(run.adapt(0, 2.0, validation_loss=0.5)) == adaptation


async def test_an_update_that_is_not_waited_for(either: Any, daemon: FakeDaemon) -> None:
    """A sent alignment returns at once, and stays in order with the observations around it."""
    run = await opened(either, "a", meta=True)
    daemon.may_answer.clear()
    first = run.observe(0, 1.0)
    pending = run.send_alignment(0, 1.0)
    second = run.observe(1, 1.0)
    assert not pending.done()
    assert pending.step == 0
    daemon.may_answer.set()
    assert (await done(pending.adaptation())).applied
    lrs = [await done(observed.lr()) for observed in (first, second)]
    assert lrs == lr_sequence([1.0, 1.0], {0: 1.0})


@pytest.mark.parametrize("word", ["restart", "cut", "drain"])
async def test_breaks_change_nothing(either: Any, daemon: FakeDaemon, word: str) -> None:
    """Whatever happens to the daemon between observations and updates, each update is made once, in order."""
    run = await opened(either, "a", meta=True)
    losses, alignments, lrs = [], {}, []
    for step in range(12):
        losses.append(1.0 / (1 + step))
        lrs.append(await done(run.next_lr(step, losses[-1])))
        if step % 3 == 1:
            getattr(daemon, word)()
        if step % 2:
            alignments[step] = 0.5 * step
            adaptation = await done(run.adapt(step, alignments[step]))
            assert adaptation.learning_rate == adapted_lr(losses, alignments, step)
        if step % 4 == 1:
            getattr(daemon, word)()
    assert lrs == lr_sequence(losses, alignments)
    assert daemon.runs["a"].alignments == alignments


async def test_the_daemon_is_away(connect: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    """Without the daemon the advised rate applies; once it is back it gets the update, in its order."""
    advisor = connect(daemon.target, timeout_s=0.5)
    try:
        run = await opened(advisor, "a", meta=True)
        lr = await done(run.next_lr(0, 1.0))
        daemon.stop()
        adaptation = await done(run.adapt(0, 2.0))
        assert adaptation.outcome == MetaOutcome.FALLBACK
        assert (adaptation.applied, adaptation.learning_rate) == (False, lr)
        assert await done(run.next_lr(1, 1.0)) == lr
        assert (await done(run.adapt(1, 3.0))).learning_rate == lr
        await until(lambda: "the fallback" in caplog.text)
        daemon.start()
        await until(lambda: daemon.runs["a"].alignments == {0: 2.0, 1: 3.0})
        assert daemon.runs["a"].losses == [1.0, 1.0]
        await until(lambda: "the daemon is back" in caplog.text)
        assert await done(run.next_lr(2, 1.0)) == lr_sequence([1.0] * 3, {0: 2.0, 1: 3.0})[2]
    finally:
        await done(advisor.close())


async def test_away_and_no_fallback(connect: Any, daemon: FakeDaemon) -> None:
    """Without a fallback the error is raised, and asking again continues with the same update."""
    advisor = connect(daemon.target, timeout_s=0.3)
    try:
        run = await opened(advisor, "a", meta=True, fallback=None)
        await done(run.next_lr(0, 1.0))
        daemon.stop()
        with pytest.raises((mlrs.UnavailableError, mlrs.errors.DeadlineExceededError), match="step 0"):
            await done(run.adapt(0, 2.0))
        daemon.start()
        adaptation = await done(run.adapt(0, 2.0, timeout_s=10))
        assert adaptation.learning_rate == adapted_lr([1.0], {0: 2.0}, 0)
    finally:
        await done(advisor.close())


async def test_refusals(either: Any, daemon: FakeDaemon) -> None:
    """A refusal is raised; one that may pass is not, and the update is sent again."""
    run = await opened(either, "a", meta=True)
    await done(run.next_lr(0, 1.0))
    daemon.refuse_next = [pb.ERROR_REASON_RUN_FINISHED]
    with pytest.raises(mlrs.errors.RunFinishedError):
        await done(run.adapt(0, 1.0))
    daemon.refuse_next = [pb.ERROR_REASON_QUEUE_FULL]
    assert (await done(run.adapt(0, 2.0))).applied
    daemon.refuse_next = [pb.ERROR_REASON_STALE_HANDLE]
    assert (await done(run.next_lr(1, 1.0))) > 0.0
    assert (await done(run.adapt(1, 2.0))).applied


async def test_wrong_updates(either: Any) -> None:
    """What cannot be an update is refused before anything is sent, and the argument is named."""
    run = await opened(either, "a", meta=True)
    await done(run.next_lr(0, 1.0))
    for alignment in (math.nan, math.inf, 1e31, "1", None):
        with pytest.raises(mlrs.errors.InvalidArgumentError, match="alignment"):
            await done(run.adapt(0, alignment))
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="validation_loss"):
        await done(run.adapt(0, 1.0, validation_loss="low"))
    with pytest.raises(mlrs.errors.StepAheadError):
        await done(run.adapt(1, 1.0))
    plain = await opened(either, "plain")
    await done(plain.next_lr(0, 1.0))
    with pytest.raises(mlrs.errors.ConfigMismatchError, match="meta=True"):
        await done(plain.adapt(0, 1.0))
    run.detach()
    with pytest.raises(mlrs.errors.ClosedError):
        await done(run.adapt(0, 1.0))


async def test_the_config_comes_back(either: Any) -> None:
    """A run shows the meta mode that it was opened with."""
    meta = Meta(scope="model", order="after_step", every=7, learning_rate=1e-4, max_change=0.5, clip=3.0)
    run = await opened(either, "a", meta=meta)
    assert run.config.meta == meta
    assert repr(run.config.meta).startswith("Meta(scope='model', order='after_step', every=7")
    assert (await opened(either, "b")).config.meta is None


async def test_sweeps(either: Any, daemon: FakeDaemon) -> None:
    """A sweep adapts all of its runs at once; NaN leaves one out."""
    sweep = await done(either.sweep(["a", "b", "c"], meta=True))
    await done(sweep.next_lrs(0, [1.0, 2.0, 3.0]))
    daemon.restart()
    found = await done(sweep.adapt(0, np.array([1.0, np.nan, -1.0]), validation_losses=[1.0, 2.0, 3.0]))
    assert [adaptation.outcome for adaptation in found] == ["applied", "skipped", "applied"]
    assert found[2].learning_rate == adapted_lr([3.0], {0: -1.0}, 0)
    assert [daemon.runs[run_id].alignments for run_id in "abc"] == [{0: 1.0}, {}, {0: -1.0}]
    lrs = await done(sweep.next_lrs(1, [1.0, 1.0, 1.0]))
    assert lrs[0] == lr_sequence([1.0, 1.0], {0: 1.0})[1]
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="alignments"):
        await done(sweep.adapt(1, [1.0, 2.0]))
    assert [one.outcome for one in await done(sweep.adapt(1, [math.nan] * 3))] == ["skipped"] * 3


async def test_a_sweep_without_the_daemon(connect: Any, daemon: FakeDaemon) -> None:
    """While the daemon is away, each run of a sweep keeps the learning rate that it was advised."""
    advisor = connect(daemon.target, timeout_s=0.3)
    try:
        sweep = await done(advisor.sweep(["a", "b"], meta=True))
        lrs = await done(sweep.next_lrs(0, [1.0, 2.0]))
        daemon.stop()
        found = await done(sweep.adapt(0, [1.0, 2.0]))
        assert [one.learning_rate for one in found] == lrs.tolist()
        daemon.start()
        await until(lambda: [daemon.runs[name].alignments for name in "ab"] == [{0: 1.0}, {0: 2.0}])
    finally:
        await done(advisor.close())


async def test_an_alignment_from_another_process(either: Any, daemon: FakeDaemon) -> None:
    """An update can be made of a run by its id, without observing it."""
    run = await opened(either, "a", meta=True)
    await done(run.next_lr(0, 1.0))
    made = await done(either.adapt("a", 0, 0.75, validation_loss=1.0))
    assert (made.outcome, made.applied, made.updates) == (MetaOutcome.APPLIED, True, 1)
    assert made.learning_rate == adapted_lr([1.0], {0: 0.75}, 0)
    assert daemon.runs["a"].alignments == {0: 0.75}
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="alignment"):
        await done(either.adapt("a", 0, math.nan))


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
async def test_gradients(either: Any, daemon: FakeDaemon, kind: str) -> None:
    """Both vectors arrive whole, in pieces of 512 KiB, whatever buffers they lie in and of what type."""
    run = await opened(either, "a", meta=True)
    await done(run.next_lr(0, 1.0))
    chance = np.random.default_rng(0)
    shapes = [(300, 1000), (7,), (0,), (3, 5)]
    whole = [[chance.integers(-8, 8, shape).astype(np.float32) for shape in shapes] for _ in range(2)]
    expected = sum(float((one * other).sum(dtype=np.float64)) for one, other in zip(*whole, strict=True))
    if kind == "bfloat16":  # small integers are exact in each type
        sent = [[(array.view(np.uint32) >> 16).astype(np.uint16) for array in side] for side in whole]
    else:
        sent = [[array.astype(kind) for array in side] for side in whole]
    named = kind if kind == "bfloat16" else None
    found = await done(either.adapt_gradients("a", 0, *sent, data_type=named))
    assert found.alignment == expected
    assert found.applied
    assert max(daemon.chunks) == 512 * 1024
    assert len(daemon.chunks) == -(-sum(array.nbytes for array in sent[0]) // (512 * 1024))


async def test_wrong_gradients(either: Any) -> None:
    """Vectors that are none, or not of one size and type, are refused by name before anything is sent."""
    ones = np.ones(4, np.float32)
    for gradient, direction, field in (
        ("text", ones, "validation_gradient"),
        (ones, None, "direction"),
        (ones, [ones, ones], "direction"),
        (ones, ones[:3], "direction"),
        (ones[::2], ones[::2], "validation_gradient"),
        (ones.astype(float), ones.astype(float), "data_type"),
        (ones, ones.astype(np.float16), "data_type"),
        ([], [], "validation_gradient"),
    ):
        with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
            await done(either.adapt_gradients("a", 0, gradient, direction))
        assert caught.value.field == field
