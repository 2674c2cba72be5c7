"""Generators of synthetic data, shared by tasks."""
