"""The scale gamma, the upper bound of a paper-exact MLR-SNet's learning rate.

The authors' code (meta-test; the paper leaves it open) sets

    gamma = | sqrt(L) * ln(L * C) / C**0.25 | / 4

from the first loss L and the class count C, and again at each switch of snapshots. That has three
gaps, each closed here by a guard that leaves the rule as it is wherever it makes sense:

* At L = 1/C the logarithm is 0, so gamma is 0 and training freezes. The logarithm counts as at
  least 1 in magnitude, which changes the rule only within a factor e of L = 1/C.
* Losses can be negative (an ELBO) or 0: |L| is used, and at least 1e-6.
* Losses can be huge (an MSE in raw units): gamma is at most 10. A cross-entropy stays below that.

Where C is unknown, ln C is taken to be the first loss, which is what an untrained classifier has,
within [ln 2, ln 1e6].
"""

from __future__ import annotations

import math

from mlrs_core.compiled import clip, compiled

MAX_GAMMA = 10.0
"""The largest gamma that the rule gives."""
MIN_MAGNITUDE = 1e-6
"""The smallest |L| that the rule distinguishes from 0."""
MIN_LOG_CLASSES, MAX_LOG_CLASSES = math.log(2), math.log(1e6)
"""The range in which ln C is guessed."""


@compiled
def guess_log_classes(first_loss: float) -> float:
    """Return ln C as guessed from the first loss of a run, in nats."""
    return clip(abs(first_loss), MIN_LOG_CLASSES, MAX_LOG_CLASSES)


@compiled
def shu_gamma(loss: float, log_classes: float) -> float:
    """Return gamma by the authors' rule, guarded as the module says.

    Args:
        loss: the loss L, finite, of any sign.
        log_classes: ln C, nats.

    Returns:
        gamma, in (0, 10].
    """
    magnitude = max(abs(loss), MIN_MAGNITUDE)
    logarithm = max(abs(math.log(magnitude) + log_classes), 1.0)
    gamma = math.sqrt(magnitude) * logarithm / math.exp(0.25 * log_classes) / 4
    return min(gamma, MAX_GAMMA)
