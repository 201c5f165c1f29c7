"""Server-sent events: one poll of the daemon, shared by all pages that follow the same.

| module | what it has |
|---|---|
| `hub` | who follows what; how many may |
| `topic` | what several pages follow: polls while somebody does, and says when the daemon is away |
| `sources` | what is polled: a run's record, a list, the daemon's state |
| `follower` | what one page has not been sent yet: the newest, never a backlog |
| `sse` | the events as a response |
"""
