"""The search for the learning rate to begin with: the results of trials in, the next trial out.

    race.py   the rules: which trials, how long, and what follows from them

A search keeps no state: `what_next` is a pure function of the setup and the results so far, so a search that
is continued after a crash makes the same decisions. Who makes the trials, and where results are stored, is
not known here.
"""

from mlrs_core.search.race import Found, SearchSetup, Trial, TrialResult, what_next

__all__ = ["Found", "SearchSetup", "Trial", "TrialResult", "what_next"]
"""What the daemon uses."""
