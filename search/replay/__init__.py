"""Recorded tables, searches simulated on them, and the statistics that compare strategies."""
