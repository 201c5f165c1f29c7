"""Meta mode: how a run's own network goes on learning. docs/meta-mode.md has the formulas.

protocol.py   what a policy that adapts offers
rows.py       what a run's state holds beside the frozen policy's
learner.py    what an architecture brings to it: its step, its gradient
kernel.py     the policy: updates under guard rails
adam.py       Adam, as torch has it
rails.py      what alignments and losses are usual, and what is a blow-up
"""

from mlrs_core.adapting.protocol import Adapted, AdaptivePolicy, MetaCounters, MetaOutcome
from mlrs_core.adapting.rows import counters_of

__all__ = ["Adapted", "AdaptivePolicy", "MetaCounters", "MetaOutcome", "counters_of"]
