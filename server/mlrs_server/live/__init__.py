"""Runs in memory: their states, the engine that advances them, their machine code, their way to the store.

One event loop owns all of it, and nothing awaits between reading a state and writing it: the hot path is
here. It may import models, the store, the domain and the core.
"""
