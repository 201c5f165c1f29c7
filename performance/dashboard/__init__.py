"""What the dashboard costs: those who look at it, the daemon, and training loops meanwhile."""
