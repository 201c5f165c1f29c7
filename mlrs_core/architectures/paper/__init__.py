"""The network of the paper, exact: loss in, `gamma * sigmoid(w h + b)` out (Shu et al., section 3)."""

from mlrs_core.architectures.paper.spec import GateLayout, PaperSpec

__all__ = ["GateLayout", "PaperSpec"]
