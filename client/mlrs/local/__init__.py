"""The daemon of this user on this machine, which is started when it is first needed.

| module | what it has |
|---|---|
| `target` | which daemon a program talks to when it names none |
| `place` | where the user's daemon listens, and keeps its data |
| `file_systems` | whether a folder is on this machine |
| `job` | the processes of a distributed job |
| `dashboard` | where the dashboard is that shows this daemon |
| `starting` | the start of the daemon, of which there is one whatever number of processes want it |
"""
