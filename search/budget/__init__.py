"""What suits a run: its time budget, the epochs that fit it, the scale of its space, and when a front has settled."""
