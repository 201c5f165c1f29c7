"""Values of the client as plain JSON: times in seconds since the epoch, numbers that are not finite as null.

| module | what it has |
|---|---|
| `plain` | any value of the client as plain JSON, and its encoding |
| `runs` | runs, their configs, searches, ranks and events |
| `records` | records in buckets, and samples of them |
| `tasks`, `models`, `status` | what their names say |
"""
