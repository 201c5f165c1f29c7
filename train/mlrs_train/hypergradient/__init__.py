"""Meta-training by the paper's algorithm: one-step hypergradients (Shu et al., algorithm 1).

settings.py    what its result depends on
gradient.py    the mathematics: virtual step, alignment, gradient of the validation loss
learner.py     a base learner: one task's weights, data order and LSTM state
method.py      the algorithm: base learners interleaved under one network
"""
