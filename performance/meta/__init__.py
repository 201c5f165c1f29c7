"""What meta mode costs, with and without a wire."""
