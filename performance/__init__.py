"""Performance and quality of the parts: what is measured, where, and the page that is made of it.

`make performance` runs what measures the way of an observation, and writes `docs/performance/`. Every script
says in its docstring what it measures; each is started as a module: `python -m performance.advice.latency`.

    advice/     what advice costs: alone, many streams, many runs, ranks
    daemon/     starting, the event loop, the store
    meta/       meta mode, with and without a wire
    training/   meta-training: its speed, what the inputs are worth, how the result converges
    shared/     servers to compare, load, and how blocks are timed
    report/     options and files of the scripts, tables, pictures, pages
"""
