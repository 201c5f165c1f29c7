"""`mlrs runs`: the runs of a daemon, listed, followed, exported, deleted and sent."""
