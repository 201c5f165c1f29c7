"""What users hand in and get back, and the checks of it.

Plain frozen values and functions that raise `InvalidArgumentError` naming the argument: no I/O and no state.
It may import `mlrs.errors` and the standard library only.
"""
