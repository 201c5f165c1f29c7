"""The adapter for Keras: a callback that sets the learning rate of each batch to a daemon's advice.

    model.fit(x, y, epochs=10, callbacks=[AdvisedLR("my-task")])

A callback of Keras sees a loss only after its update. So the learning rate of a batch is the advice for the
loss of the batch before, and the first batch of a run only measures the loss: its learning rate is 0.
"""

from mlrs.keras.callback import AdvisedLR

__all__ = ["AdvisedLR"]
