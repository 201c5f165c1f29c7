"""Meta-training by evolution: antithetic evolution strategies on the result of whole trainings.

settings.py     what its result depends on
draw.py         random numbers, from a key of integers
families/       the training tasks; a registry where adding one is one function
problem.py      what a task is: losses of many copies of a base model at once
conditions.py   what surrounds a task: optimizer, horizon, start, what the policy is told
optimizers.py   update rules of many copies at once, each at its own learning rate
policies.py     who chooses the learning rates: networks, fixed schedules
rollout.py      one batched training of many copies
objective.py    a number for how a training went, capped
estimator.py    perturbations, ranks, Adam and averaging of phi
teachers.py     schedules from many rates, and what their results say about every other rate
lessons.py      what one task teaches: runs as a network saw them, and what each rate would cost
cloning.py      learning from lessons: the warm start
yardsticks.py   held-out tasks, and the schedules that the network is compared with
method.py       the algorithm
"""
