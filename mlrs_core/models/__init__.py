"""Models: weights, their architecture and where they come from; and the models that mlrs ships.

model.py        a model, ready to make policies of
checkpoint.py   models as safetensors files
official.py     import of the weights that the authors published; imports torch, so by name only
"""
