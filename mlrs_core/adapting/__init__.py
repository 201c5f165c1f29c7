"""Meta mode: how a run's own network goes on learning. docs/guides/meta-mode.md has the formulas.

protocol.py       what a policy that adapts offers
state_layout.py   what a run's state holds beside the frozen policy's
learner.py        what an architecture brings to it: its step, its gradient
kernel.py         the policy: updates under guard rails
adam.py           Adam, as torch has it
guard_rails.py    what sizes of alignments and losses a run is used to, and what is a blow-up
unpacking.py      weights by name, out of a vector that a kernel reads
"""

from mlrs_core.adapting.protocol import Adapted, AdaptivePolicy, MetaCounters, MetaOutcome
from mlrs_core.adapting.state_layout import counters_of

__all__ = ["Adapted", "AdaptivePolicy", "MetaCounters", "MetaOutcome", "counters_of"]
