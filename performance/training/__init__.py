"""Meta-training: its speed, what the network's inputs are worth, how its result converges."""
