"""Lessons: what a network learns by gradient before evolution.

On a random task the schedule is run from many learning rates, so it is known what each would cost. Then
other trainings are made, from rates that searches might find, and moved up and down as they go; what a
network would see at each look is recorded. From all that it has seen, a network is to move its rate to
where the task's costs are least.

costs.py       what every learning rate would cost on a task
recording.py   trainings whose rates follow plans, with all that a network would have seen
lesson.py      one task's costs and recorded trainings
study.py       the gradient of what a network's moves would cost
"""
