"""Exports networks with random weights, for tests of what they predict."""

import torch

from search.export.folder import export
from search.export.rebuild import network_of
from search.training.weights import write_weights
from spaces.build import task_of


def export_network(architecture, task, folder):
    """Export to ``folder/model``; returns that folder, the network, its task and the results of the programs."""
    torch.manual_seed(0)
    fitted = task_of(architecture, task)
    network = network_of(architecture, fitted)
    write_weights(folder / "weights", network.state_dict(), architecture)
    (folder / "model").mkdir()
    return folder / "model", network, fitted, export(architecture, folder / "weights", task, folder / "model")[""]
