"""Confirming a front: its members are trained again with fresh seeds, as each was chosen by a single noisy training."""
