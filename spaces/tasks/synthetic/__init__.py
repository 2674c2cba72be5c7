"""Generators of made-up data, shared by tasks."""
