"""The adapter for Lightning: a callback that sets the learning rate of every update to a daemon's advice.

    trainer = lightning.Trainer(max_epochs=10, callbacks=[AdvisedLR("resnet18-cifar10")])
    trainer.fit(model, datamodule)

It works with the packages `lightning` and `pytorch_lightning`. It may use Lightning, PyTorch, and what is
public in the client and in `mlrs.torch`.
"""

from mlrs.lightning.callback import AdvisedLR

__all__ = ["AdvisedLR"]
