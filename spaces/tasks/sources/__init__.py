"""Readers of the user's own files, shared by tasks."""
