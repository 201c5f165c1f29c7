"""The models that runs can name: those shipped, those in the store, their names and aliases, ready to serve.

It may import the store, the domain and the core; never runs.
"""
