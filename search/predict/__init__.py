"""Prediction with an exported model."""
