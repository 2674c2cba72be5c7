"""When a run ends: its time budget, the epochs that fit it, and a front that has stopped growing."""
