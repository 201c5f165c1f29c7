"""Generated stubs of the mlrs contract. Only `convert.py` modules should import them."""
