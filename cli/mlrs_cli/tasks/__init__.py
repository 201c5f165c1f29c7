"""`mlrs tasks`: what is remembered of tasks, listed, shown and forgotten."""
