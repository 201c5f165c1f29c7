"""Which daemon a training job talks to when it names none."""
