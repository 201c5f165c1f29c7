"""The warm start: the network learns, by gradient, from schedules whose results are known.

teachers.py   schedules from many rates, and what their results say about every other rate
lessons.py    what one task teaches: runs as a network saw them, and what each rate would cost
study.py      learning from lessons
"""
