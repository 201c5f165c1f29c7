"""The network of the paper, exact: loss in, `gamma * sigmoid(w h + b)` out (Shu et al., section 3)."""

from mlrs_core.networks.paper.spec import GateLayout, PaperSpec

__all__ = ["GateLayout", "PaperSpec"]
