"""`mlrs models`: models, their versions and aliases."""
