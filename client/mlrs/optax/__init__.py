"""The adapter for Optax: a schedule that advises the learning rate of an update for the loss of that update.

    learning_rate = AdvisedLR("my-task", horizon=10_000)
    optimizer = advised(optax.adamw, learning_rate, weight_decay=1e-4)
    opt_state = optimizer.init(params)
    ...
    updates, opt_state = optimizer.update(grads, opt_state, params, value=loss)   # also inside `jax.jit`

`AdvisedLR` is a stateful schedule, as `optax.inject_hyperparams` takes it; `advised` is
`optax.inject_hyperparams` for the learning rate alone. The step and the run's id are part of the
optimizer's state, so any checkpoint of that state continues the run.

`get_learning_rate` reads the learning rate of the last update. `set_learning_rate` is for loops that ask
for the learning rate themselves, such as sweeps under `jax.vmap`.
"""

from mlrs.optax.factory import advised
from mlrs.optax.plain import get_learning_rate, set_learning_rate
from mlrs.optax.schedule import AdvisedLR, AdvisedState

__all__ = ["AdvisedLR", "AdvisedState", "advised", "get_learning_rate", "set_learning_rate"]
