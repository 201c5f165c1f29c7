"""The schedule advises each compiled update for its own loss, and notices where it cannot."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs.errors import InvalidArgumentError, UsageError
from tests.support.frameworks import framework

jax = framework("jax")
optax = framework("optax")

import jax.numpy as jnp  # noqa: E402 # once it is known to be there

from mlrs.optax import AdvisedLR, advised, get_learning_rate  # noqa: E402
from mlrs.optax.schedule import MANY_TRACES  # noqa: E402
from tests.support.trainings.optax_training import BATCHES, HORIZON, Training, loss_of  # noqa: E402


def replayed(advisor: mlrs.Advisor, losses: list[Any], **options: Any) -> list[Any]:
    """Return the learning rates that a run gets by plain calls for these losses."""
    run = advisor.run("replayed", memory=False, horizon=HORIZON, **options)
    return [np.float32(run.next_lr(step, float(loss))) for step, loss in enumerate(losses)]


def make(advisor: mlrs.Advisor, **options: Any) -> AdvisedLR:
    """Return a schedule."""
    return AdvisedLR("optax", advisor=advisor, memory=False, horizon=HORIZON, **options)


def test_exact_in_one_trace(advisor: mlrs.Advisor) -> None:
    """A compiled update has the learning rate for its own loss, and is traced once for all steps."""
    training = Training(make(advisor), weight_decay=0.01)
    training.train(0, HORIZON)
    assert training.rates == replayed(advisor, training.losses, optimizer="adamw", momentum=0.9)
    assert len(set(training.rates)) > HORIZON // 2
    assert training.learning_rate.traces == 1
    assert training.compiled._cache_size() == 1
    training.learning_rate.finish(metric=0.5)
    info = advisor.get_run(training.learning_rate.run.id)
    assert (info.next_step, info.status) == (HORIZON, "finished")


def test_scan(advisor: mlrs.Advisor) -> None:
    """Updates within `jax.lax.scan` have the learning rates of updates one by one."""
    one_by_one = Training(make(advisor), momentum=0.9, factory=optax.sgd)
    one_by_one.train(0, 12)
    scanned = Training(make(advisor), momentum=0.9, factory=optax.sgd)
    scan = jax.jit(lambda state, batches: jax.lax.scan(scanned.step, state, batches))
    scanned.state, (losses, rates) = scan(scanned.state, BATCHES[:12])
    assert [*losses] == one_by_one.losses
    assert [*rates] == one_by_one.rates
    assert scanned.learning_rate.traces == 1


def test_without_compiling(advisor: mlrs.Advisor) -> None:
    """Updates that are not compiled are advised, too."""
    training = Training(make(advisor), factory=optax.sgd)
    for batch in BATCHES[:3]:
        training.state, (loss, rate) = training.step(training.state, batch)
        training.losses.append(loss)
        training.rates.append(rate)
    assert training.rates == replayed(advisor, training.losses, optimizer="sgd", momentum=0.0)
    assert training.learning_rate.traces == 0


def test_inject_hyperparams(advisor: mlrs.Advisor) -> None:
    """Optax's own `inject_hyperparams` takes the schedule, and its optimizers can be chained."""

    def inside(optimizer: Any) -> Any:
        del optimizer
        injected = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule, momentum=0.9)
        return optax.chain(optax.clip_by_global_norm(1.0), injected)

    schedule = make(advisor, optimizer="momentum", momentum=0.9)
    training = Training(schedule, wrap=inside)
    training.train(0, 6)
    assert training.rates == replayed(advisor, training.losses, optimizer="momentum", momentum=0.9)


def test_accumulation(advisor: mlrs.Advisor) -> None:
    """With micro-batches, a step has the learning rate for their mean loss; other calls update nothing."""
    training = Training(make(advisor, accumulation_steps=2), factory=optax.sgd)
    training.train(0, 8)
    means = np.asarray(training.losses, np.float32).reshape(4, 2).sum(1) / np.float32(2)
    assert training.rates[1::2] == replayed(advisor, [*means], optimizer="sgd", momentum=0.0)
    assert training.rates[0::2] == [0.0] * 4
    assert training.losses[0] != training.losses[1]
    assert training.learning_rate.run.next_step == 4


def test_float64(advisor: mlrs.Advisor) -> None:
    """With 64-bit numbers enabled, the advice arrives unrounded."""
    with jax.enable_x64(True):
        training = Training(make(advisor), factory=optax.sgd)
        state, (loss, rate) = training.compiled(training.state, BATCHES[0])
        jax.block_until_ready(state)
        run = advisor.run("replayed", memory=False, horizon=HORIZON, optimizer="sgd", momentum=0.0)
        assert rate.dtype == np.float64
        assert float(rate) == run.next_lr(0, float(loss))


def test_sharded_batches(advisor: mlrs.Advisor) -> None:
    """A compiled step whose batch is sharded over devices asks once, for the loss of the whole batch."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    training = Training(make(advisor), factory=optax.sgd)
    training.state, (loss, rate) = training.compiled(training.state, jax.device_put(BATCHES[0], split))
    assert float(loss) == pytest.approx(float(loss_of({"weights": jnp.ones(3)}, BATCHES[0])))
    assert [rate] == replayed(advisor, [loss], optimizer="sgd", momentum=0.0)


def test_shard_map(advisor: mlrs.Advisor) -> None:
    """Within `jax.shard_map`, each device asks for the mean loss, and all get the same learning rate."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
    spec = jax.sharding.PartitionSpec
    optimizer = advised(optax.sgd, make(advisor))

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(spec(), spec(), spec("data")),
        out_specs=(spec(), spec(), spec(), spec("data")),
        check_vma=False,
    )
    def step(weights: Any, opt_state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)({"weights": weights}, batch)
        loss, grads = jax.lax.pmean((loss, grads["weights"]), "data")
        updates, opt_state = optimizer.update(grads, opt_state, weights, value=loss)
        return weights + updates, opt_state, loss, get_learning_rate(opt_state)[None]

    weights = jnp.ones(3)
    opt_state = optimizer.init(weights)
    losses, rates = [], []
    for batch in BATCHES[:3]:
        weights, opt_state, loss, rate = step(weights, opt_state, batch)
        losses.append(loss)
        rates.append([*map(float, rate)])
    expected = replayed(advisor, losses, optimizer="sgd", momentum=0.0)
    assert rates == [[float(one)] * len(jax.devices()) for one in expected]


def test_vmap_is_refused(advisor: mlrs.Advisor) -> None:
    """Under `jax.vmap`, an error names the sweep as the way out."""
    training = Training(make(advisor), factory=optax.sgd)
    members = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), training.state)
    with pytest.raises(UsageError, match=r"advisor\.sweep"):
        jax.vmap(jax.jit(training.step), in_axes=(0, None))(members, BATCHES[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, UsageError, "value=loss"),
        ({"value": 1.5}, UsageError, "constant of the compiled function"),
        ({"value": BATCHES[0]}, InvalidArgumentError, "a scalar"),
    ],
)
def test_wrong_losses(advisor: mlrs.Advisor, arguments: Any, error: Any, message: str) -> None:
    """An update without a loss, with a constant one, or with several numbers is refused when it is traced."""
    optimizer = advised(optax.sgd, make(advisor))
    weights = jnp.ones(3)
    with pytest.raises(error, match=message):
        jax.jit(partial(optimizer.update, **arguments))(weights, optimizer.init(weights), weights)


def test_a_schedule_of_the_step_alone(advisor: mlrs.Advisor) -> None:
    """An optimizer that takes the schedule for a function of the step is refused, with the way out."""
    optimizer = optax.adamw(make(advisor))
    weights = jnp.ones(3)
    with pytest.raises(UsageError, match=r"mlrs\.optax\.advised"):
        optimizer.update(weights, optimizer.init(weights), weights)


def test_a_state_that_is_compiled_in(
    advisor: mlrs.Advisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the state is a constant of the compiled update, a warning says so, and at last an error."""
    monkeypatch.setattr("mlrs.optax.asking.MOST_REPEATS", 5)
    optimizer = advised(optax.sgd, make(advisor))
    weights = jnp.ones(3)
    state = optimizer.init(weights)
    update = jax.jit(lambda loss: optimizer.update(weights, state, weights, value=loss)[0])
    for loss in range(5):
        update(jnp.float32(loss)).block_until_ready()
    warned = [record.message for record in caplog.records if "constant of a compiled" in record.message]
    assert len(warned) == 1
    with pytest.raises(jax.errors.JaxRuntimeError, match="constant of a compiled function"):
        update(jnp.float32(5.0)).block_until_ready()


def test_a_trace_for_each_step(advisor: mlrs.Advisor, caplog: pytest.LogCaptureFixture) -> None:
    """Where something compiles the update again at each step, one warning says so."""
    training = Training(make(advisor), factory=optax.sgd)
    step = jax.jit(lambda state, batch, number: (training.step(state, batch), number), static_argnums=2)
    with caplog.at_level(logging.WARNING, "mlrs"):
        for number in range(MANY_TRACES + 3):
            (training.state, _), _ = step(training.state, BATCHES[number], number)
    assert training.learning_rate.traces == MANY_TRACES + 3
    assert [record.message.partition(": ")[2][:14] for record in caplog.records] == ["JAX has traced"]


def test_traced_and_never_run(advisor: mlrs.Advisor) -> None:
    """A training whose compiled update never asked is no complete one: `finish` says so."""
    training = Training(make(advisor))
    jax.eval_shape(training.step, training.state, BATCHES[0])
    with pytest.raises(UsageError, match="has never asked"):
        training.learning_rate.finish()
