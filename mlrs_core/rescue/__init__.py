"""Rescue: trainings that blew up or overfit are told so, and go on at a lower learning rate.

detector.py      what tells from the losses that a training blew up, compiled
overfitting.py   what tells from the validation losses that it overfits, compiled
policy.py        any policy with both around it
"""

from mlrs_core.rescue.policy import RescuingPolicy, share_of

__all__ = ["RescuingPolicy", "share_of"]
