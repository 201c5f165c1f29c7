"""The quality benchmark: does advised training end as well as tuned training?

    task.py, tasks/         what is trained: data, network, loss, horizon
    rules.py                the optimizers whose LR is set, and the base LRs that tuning tries
    methods/                what sets the LR: schedules and networks served by a daemon, and others
    training.py, curve.py   one training
    cell.py, cache.py       its result, and where results are kept
    models.py, daemon.py    the networks to judge, and the daemon that serves them
    plan.py                 which trainings a table needs, tuning included
    workers.py, bench.py    carrying them out
    report/                 tables and pictures of the results
    errors.py               what can go wrong

It imports `mlrs`, `mlrs_train` and `mlrs_core`, and uses a daemon only as a process.
"""
