"""Runs in memory: their states, the engine that advances them, and their way to the store and back.

One event loop owns all of it, and nothing awaits between reading a state and writing it: the hot path is
here. It may import models, the store, the domain and the core.
"""
