"""Models: where mechanisms are plugged in. A model never asks which mechanism it was given."""
