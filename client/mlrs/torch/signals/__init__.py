"""Measures of an optimizer's steps, which a scheduler sends with its losses.

A recorder copies a fixed sample of the weights before and after a step, and sums it up on its device.
It may use the shards and the optimizer's settings; it changes no tensor of the training and waits for none.
"""
