"""The adapter for PyTorch: a learning-rate scheduler whose schedule is a daemon's advice.

    scheduler = AdvisedLR(optimizer, run)
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        scheduler.observe(loss)   # sends the loss and returns at once
        loss.backward()           # the round trip hides behind this
        optimizer.step()          # waits for the advice, then updates with it
        scheduler.step()          # closes the step

`scheduler.step(loss)` in place of the two calls sends, waits and applies at once, before or after
`optimizer.step()`: the habit of `ReduceLROnPlateau`.

Where the loss is computed in a closure, as with LBFGS, the closure calls `observe`. `optimizer.step(closure)`
calls it, waits for the advice, and then updates. Of a closure that is called several times in a step, the
first loss counts.

`MetaStep` takes the optimizer's steps of a run in meta mode: every so many, its network learns from a
validation batch.

In a distributed job (`torchrun`) the same lines are for every rank: their losses become one mean, rank 0
asks the daemon, and all update with the same learning rate, to the bit. Rank 0 alone needs a run.

A loss that is still being computed on a device does not hold `observe` up: it is read, and sent, by another
thread once the device has it.
"""

from mlrs.torch.meta_step import MetaStep
from mlrs.torch.scheduler import AdvisedLR, describe

__all__ = ["AdvisedLR", "MetaStep", "describe"]
