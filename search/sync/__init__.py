"""Log the trials of a stored study that are missing in MLflow."""
