"""The values that users pass and receive, and the checks of them.

Plain frozen values and functions that raise `InvalidArgumentError` naming the argument: no I/O and no state.
It may import `mlrs.errors` and the standard library only.
"""
