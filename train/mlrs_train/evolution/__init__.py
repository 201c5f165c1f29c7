"""Meta-training by evolution: antithetic evolution strategies on the result of whole trainings.

settings.py     what its result depends on
draw.py         random numbers, from a key of integers
trainings/      the trainings that networks are judged on, many copies at once
objective.py    a number for how a training went, capped
sample.py       one task's fitness of a population
estimator.py    perturbations, ranks, Adam and averaging of phi
lessons/        the warm start: what a network learns by gradient from trainings at known rates
yardsticks.py   held-out tasks, and the schedules that the network is compared with
engines/        where tasks are computed: in this process, in workers, on a Ray cluster
method.py       the algorithm
"""
