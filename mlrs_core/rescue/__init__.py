"""Rescue: trainings that blew up are told so, and go on at a lower learning rate.

detector.py   what tells it from the losses, compiled
policy.py     any policy with the detector around it
"""

from mlrs_core.rescue.policy import RescuingPolicy, share_of

__all__ = ["RescuingPolicy", "share_of"]
