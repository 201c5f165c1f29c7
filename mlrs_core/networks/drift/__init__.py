"""A log-LR that drifts: an LSTM over scale-free features of the loss, and a head that moves by decades."""

from mlrs_core.networks.drift.spec import DriftSpec

__all__ = ["DriftSpec"]
