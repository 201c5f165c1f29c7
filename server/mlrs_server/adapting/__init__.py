"""Meta mode: updates of the networks of runs, made once, kept, and made again.

updates.py     an update, and those of a group that wait to be stored
making.py      updates as they come in: made, repeated, refused
gradients.py   the alignment of two gradients that come in pieces
pooling.py     new versions of models, from what runs have learnt
"""
