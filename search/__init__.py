"""How the space is searched: the study, pruning, costs, training, tracking and the front."""
