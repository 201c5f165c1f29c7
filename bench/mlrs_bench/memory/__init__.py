"""What the memory of a task is worth: `mlrs bench memory`.

    scenario.py   what is tried: the runs of a task, one after the other
    lineage.py    one such sequence of trainings, and what it came to
    bench.py      all of them: which are there, and how to make the rest
    figures.py    the numbers
    targets.py    what it was to reach, and whether it does
    page.py       the report and its picture

What it has made is kept, training by training: a stopped bench goes on where it was.
"""
