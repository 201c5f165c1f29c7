"""The mathematics of mlrs: networks, scale rules, checkpoints. State in, state out.

Nothing here knows gRPC, threads, clocks or databases, and importing it does not import torch:
the torch modules (`architectures/*/reference.py`) are the oracles of the kernels and are
imported by name.

    config.py         what the advice of a run depends on besides its losses
    ranges.py         checks of numbers against their ranges
    policy.py         what a network or a schedule must offer to be served
    compiled.py       what turns a loop over runs into machine code
    kernel_cache.py   machine code on disk
    advise.py         one step of advice, with its rules for bad losses and bounds
    scale.py          the authors' scale rule, guarded
    architectures/    the family of networks, one package each
    schedules/        the schedules designed by hand
    meta.py           how a run's network goes on learning, as it is configured
    adapting/         meta mode: updates of a run's own network, under guard rails
    model.py          weights + architecture + provenance
    checkpoint.py     models as safetensors files
    official.py       import of the weights that the authors published
"""
