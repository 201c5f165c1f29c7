"""The trainings that networks are judged on: many copies of a base model, side by side.

families/       the training tasks; a registry where adding one is one function
problem.py      what a task is: losses of many copies of a base model at once
conditions.py   what surrounds a task: optimizer, horizon, start, what the policy is given
optimizers.py   update rules of many copies at once, each at its own learning rate
policies.py     who chooses the learning rates: networks, fixed schedules
rollout.py      one batched training of many copies
"""
