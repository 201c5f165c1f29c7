"""Meta-training: how the models that mlrs serves are made. Offline; needs the extra `train`.

The daemon never imports this package, and this package knows neither daemon nor client: it reads tasks,
trains a torch module of `mlrs_core`, and writes a model file.

    tasks/            what `hypergradient` trains on; a registry where adding one is one function
    method.py         what a training method offers; methods are chosen by name
    hypergradient/    the paper's algorithm (Shu et al., algorithm 1)
    evolution/        evolution strategies on whole trainings, with tasks of its own
    session.py        one training in one folder: start, checkpoint, interrupt, resume, finish
    checkpoint.py     the state of an unfinished training as a file
    journal.py        the log: one JSON line per record, and TensorBoard events
    curves.py         the log as a picture
    progress.py       the progress bar
    evaluate.py       a model on a fresh run, beside default schedules
    errors.py         what can go wrong
"""
