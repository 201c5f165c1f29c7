"""The daemon: runs kept, observations answered, nothing lost.

convert/      proto messages <-> the types below; messages go no further
status.py     who is let in; exceptions -> status codes, in one table
security/     tokens, roles, tenants' limits, TLS
names.py      full names of what tenants have, and bare ones
service.py    the RPCs, each a few lines over the runs and the engine; streams.py: those that are open
daemon.py     start, reflection, drain; assembly.py puts the parts together
apart.py      slow work of a start, which nobody waits for who is told to stop
health.py     what health checks are told of the store
metrics.py    what Prometheus is told; counts.py counts it
warmup.py     machine code before the first run
engine.py     answers observations as they come, long messages in slices
answers.py    what an observation gets: advice, its answer again, or a refusal
opener.py     opening runs: creating, resuming, rewinding and loading them
opening.py    what a call that opens runs asks for, and whether it may be done
ending.py     finishing and deleting runs
changes.py    calls that change runs go on to their end
replay.py     a run made again from its losses and meta updates
feeders.py    the processes that have streams open; takeovers.py: from which to which a run goes
turns.py      work on many runs, in turns with everything else
records.py    reading runs: one, a list, a record as it grows; recall.py: answers given before
watchers.py   those who follow runs, and what wakes them
ownership/    which of several daemons over one store has which runs
replica.py    ... and what this one takes up, gives away and has lost
sharing.py    ... put together
live.py       the runs in memory, and how they come and go
stored_runs.py  runs as the store has them, of shards that are this daemon's; views.py shows them
run_groups.py groups of runs in memory, and how a full one gets free rows
compaction.py records of runs that rest, made compact
idle.py       runs that nobody observes leave memory
policies.py   what serves a run: a model, or a schedule
shards.py     which shard a run is of
runs.py       live runs in arrays, a group a model or a schedule's shape; run_snapshot.py: all that moves
handles.py    what names a run in memory
entries.py    observations and answers, as tables
ledger.py     exactly once, compiled: what an entry is, and a run's record after it
journal.py    what was answered and is not stored yet; flush_batch.py: what a flush stores of a group
store/        runs on disk
models.py     the models that runs can name; model_files.py reads them, once
model_names.py  what a reference means to whom, and which changes are allowed; model_index.py has the names
aliases.py    what an alias has pointed at, and what it goes back to
uploads.py    models that come over the wire
model_folder.py  models from before the store kept them, taken into it once
folder.py     the data folder, which one process has at a time
listening.py  the address to listen on; a unix socket is one daemon's at a time
locks.py      lock files
checking.py   a store read from end to end, for what is wrong with it
config.py     the daemon's settings
errors.py     what can go wrong, as reasons
failpoints.py where tests make the daemon fail
"""
