"""Training one network with Lightning, epoch by epoch."""
