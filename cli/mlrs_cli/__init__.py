"""The `mlrs` command: the one package that knows all the others. It holds no logic of its own.

root.py     the root command, and what all commands share
text.py     text from elsewhere, made safe for a terminal
values.py   values of the client as text and as JSON
daemon/     `mlrs serve`, `health`, `store`, `tokens`
runs/       `mlrs runs`
models/     `mlrs models`
bench/      `mlrs bench`
train.py    `mlrs train`
admin.py    calls of admins that the client has no method for
"""
