"""Serve the database of studies to hundreds of workers by Optuna's gRPC proxy."""
