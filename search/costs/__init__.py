"""Costs known before training: counted ones, and latency measured so that it repeats."""
