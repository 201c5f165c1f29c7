"""The daemon: runs kept, observations answered, nothing lost.

convert.py    proto messages <-> the types below; messages go no further
status.py     exceptions -> status codes, in one table
service.py    the RPCs, each a few lines over the registry and the engine
daemon.py     start, health, reflection, drain
engine.py     one pass over everything that arrived since the last
registry.py   opening, finishing, rewinding, deleting and watching runs
runs.py       live runs in arrays, a group a model
journal.py    what was answered and is not stored yet; the flush
store/        runs on disk
models.py     the models that runs can name
config.py     the daemon's settings
errors.py     what can go wrong, as reasons
"""
