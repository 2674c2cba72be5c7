"""Training of one network with Lightning, epoch by epoch."""
