"""What the scripts share: servers to compare, load, and how blocks are timed."""
