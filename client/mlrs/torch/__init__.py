"""The adapter for PyTorch: a learning-rate scheduler whose schedule is a daemon's advice.

    scheduler = AdvisedLR(optimizer, "resnet18-cifar10", horizon=10_000)
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        scheduler.observe(loss)   # sends the loss and returns at once
        loss.backward()           # the round trip hides behind this
        optimizer.step()          # waits for the advice, then updates with it
        scheduler.step()          # closes the step
    scheduler.finish()

Alternatively, `scheduler.step(loss)` sends the loss, waits for the advice and applies it in one call,
before or after `optimizer.step()`, as with `ReduceLROnPlateau`.

Where the loss is computed in a closure, as with LBFGS, the closure calls `observe`. `optimizer.step(closure)`
calls it, waits for the advice, and then updates. Of a closure that is called several times in a step, the
first loss counts.

`scheduler.search(model, loss_fn, loader)`, before the loop, finds the learning rate to begin with; `suggest`
gives it to loops that follow a schedule of their own.

`MetaStep` takes the optimizer's steps of a run in meta mode, and regularly adapts the run's network with a
validation batch.

In a distributed job (`torchrun`) every rank runs the same lines: their losses are averaged, rank 0 asks the
daemon, and all ranks update with the same learning rate, bit for bit. Only rank 0 makes a run.

`observe` does not wait for a loss that a device is computing: another thread reads and sends it when it is
ready.
"""

from mlrs.torch.attributes import Attributes
from mlrs.torch.meta_step import MetaStep
from mlrs.torch.optimizers import describe
from mlrs.torch.scheduler import AdvisedLR
from mlrs.torch.search.suggesting import suggest

__all__ = ["AdvisedLR", "Attributes", "MetaStep", "describe", "suggest"]
