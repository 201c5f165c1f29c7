"""What was measured, as numbers.

methods.py        the names of methods that mean something here, and how they are grouped
losses.py         final losses by row, method and seed; what a diverged training counts as
rows.py           a row: one task under one optimizer, its yardsticks, gap closed and log ratio
statistics.py     the interquartile mean; a win, tie or loss at two standard errors
bootstrap.py      the stratified bootstrap interval of an interquartile mean
comparisons.py      one method over many rows
sensitivity.py    what a wrong start changes
scope.py          the full benchmark: rows, methods, starts and seeds
coverage.py       what of it was measured, and what is missing
bookkeeping.py    what tuning cost, and how many trainings failed
provenance.py     which networks, packages and seeds, on what machine
targets.py        the promises, and whether the numbers keep them
summary.py        all of the above in one value
"""
