"""`mlrs dashboard`: pages about runs in the browser."""
