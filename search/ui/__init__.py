"""The command that opens the MLflow UI on the studies of this folder."""
