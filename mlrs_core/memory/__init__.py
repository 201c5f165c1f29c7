"""The memory of a task: how its past runs ended in, what the next run begins with out.

    past_run.py   a run as the memory has it
    scores.py     measures of how runs ended, made comparable
    carrying.py   learning rates carried over to another momentum, horizon or batch size
    evidence.py   which past runs count, and as what
    surface.py    how runs end over what they are advised under
    recall.py     the decision

It keeps no state and reads no clock: who stores past runs is not known here.
"""

from mlrs_core.memory.carrying import Setting
from mlrs_core.memory.evidence import MOST, evidence_of
from mlrs_core.memory.past_run import Ending, PastRun
from mlrs_core.memory.recall import Arm, Decision, Expected, Explore, Fit, recall

__all__ = [
    "MOST",
    "Arm",
    "Decision",
    "Ending",
    "Expected",
    "Explore",
    "Fit",
    "PastRun",
    "Setting",
    "evidence_of",
    "recall",
]
"""What the daemon uses."""
