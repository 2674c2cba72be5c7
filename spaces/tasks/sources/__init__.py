"""Readers of the user's own data, its splits and checks; shared by tasks."""
