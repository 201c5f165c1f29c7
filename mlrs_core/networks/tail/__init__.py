"""The tail network: an LSTM that corrects a schedule which goes to zero, from losses and optional signals."""

from mlrs_core.networks.tail.spec import TailSpec

__all__ = ["TailSpec"]
