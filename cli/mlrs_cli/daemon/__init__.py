"""What operators call: `mlrs serve`, `health`, `store` and `tokens`."""
