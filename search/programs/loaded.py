"""A program in place of its network, for the tasks, metrics and measurements of this project."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.programs.interface import Interface
from search.programs.sessions import Feed, Run
from spaces.tasks import Batch


class LoadedProgram(nn.Module):
    """A program in place of its network: pads batches as the program needs it.

    ``content`` is that of its file.
    """

    def __init__(self, run: Run, interface: Interface, free: tuple[str, ...], content: bytes = b"") -> None:
        super().__init__()
        self._run, self._interface, self._free, self.content = run, interface, free, content

    def forward(self, batch: Batch) -> Tensor:
        """The logits, as of the network."""
        logits = torch.from_numpy(self._run(self.feed(batch)))
        return logits[:, : batch.inputs.shape[1]] if logits.dim() == 3 else logits

    def generate(self, prompt: Tensor, max_new_tokens: int) -> Tensor:
        """The most probable continuation ``(batch, max_new_tokens)`` of ``prompt``; a pass over all for each token."""
        ids = prompt
        for _ in range(max_new_tokens):
            recent = ids[:, -self._interface.length :]
            ids = torch.cat([ids, self(Batch(recent, None, recent))[:, -1:].argmax(-1)], dim=1)
        return ids[:, prompt.shape[1] :]

    def feed(self, batch: Batch) -> Feed:
        """The inputs of the program."""
        inputs, interface = batch.inputs, self._interface
        length = inputs.shape[1]
        whole = -(-length // interface.multiple) * interface.multiple
        padded = max(interface.least, whole) if "length" in self._free else interface.length
        padding = torch.zeros(inputs.shape[:2], dtype=torch.bool) if batch.padding is None else batch.padding
        if padded > length:
            inputs = F.pad(inputs, (*[0] * (2 * (inputs.dim() - 2)), 0, padded - length))
            padding = F.pad(padding, (0, padded - length), value=True)
        feed = {"inputs": inputs.numpy()}
        if interface.padded:
            feed["padding"] = padding.numpy()
        return feed
