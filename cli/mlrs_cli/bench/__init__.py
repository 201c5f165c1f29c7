"""`mlrs bench`: how good the advice is."""
