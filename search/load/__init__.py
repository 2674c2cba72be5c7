"""Measure what storage and decisions cost with many workers and trials, with a fake objective in place of training."""
