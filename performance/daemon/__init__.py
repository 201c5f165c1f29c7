"""What the daemon costs: starting, its event loop, its store."""
