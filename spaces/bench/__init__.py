"""Mechanisms against softmax attention and against public packages: ``python -m spaces.bench``."""
