"""Reports of a study: terminal output, plots, and explanations of single trials."""
