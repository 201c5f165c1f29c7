"""What advice costs: alone, with many streams, many runs, and ranks."""
