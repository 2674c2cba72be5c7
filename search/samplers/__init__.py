"""The choice of the next trial: candidate architectures, the surrogate model, and a reproducible random sampler."""
