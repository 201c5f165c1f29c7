"""Connections to the daemon, one for each token, and answers that are kept to be given again.

| module | what it has |
|---|---|
| `daemon` | the daemon as the holder of one token sees it |
| `access` | which daemon a request is about: that of its browser's token |
| `cache` | answers by what they are of, within a bound of bytes |
"""
