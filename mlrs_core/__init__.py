"""The mathematics of mlrs: networks, schedules, models. State in, state out.

Nothing here knows gRPC, threads, clocks or databases, and importing it does not import torch:
the torch modules (`networks/*/reference.py`) are the oracles of the kernels and are imported by name.

    policy.py         what a network or a schedule must offer to be served
    advise.py         one step of advice, with its rules for bad losses and bounds
    compiled.py       what turns a loop over runs into machine code
    kernel_cache.py   machine code on disk
    errors.py         what can go wrong
    config/           what the advice of a run depends on besides its losses
    networks/         the family of networks, one package each, and the authors' rules around them
    adapting/         meta mode: updates of a run's own network, under guard rails
    schedules/        the schedules designed by hand
    search/           which trials find the learning rate to begin with
    models/           weights + architecture + provenance, as files; and the models that mlrs ships
"""
