"""A program in place of its network, for the tasks, metrics and measurements of this project."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.programs.decoding import greedy
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


class LoadedTranslator(LoadedProgram):
    """That of a network from one sequence to another; it reads source and translation again for each token."""

    def forward(self, batch: Batch) -> Tensor:
        """The logits of the token after each of ``batch.decoder_input_ids``, as of the network."""
        ids = batch.decoder_input_ids
        assert ids is not None
        missing = (self._interface.answer_length or 0) - ids.shape[1]
        logits = self._run({**self.feed(batch), "decoder_input_ids": F.pad(ids, (0, missing)).numpy()})
        return torch.from_numpy(logits[:, : ids.shape[1]])

    def generate(  # type: ignore[override]
        self, batch: Batch, max_new_tokens: int, *, ignore_eos: bool = False
    ) -> Tensor:
        """See :meth:`spaces.models.seq2seq.Seq2Seq.generate`."""
        feed, length = self.feed(batch), self._interface.answer_length or 0
        return torch.from_numpy(
            greedy(
                lambda ids: self._run({**feed, "decoder_input_ids": ids}),
                batch.size,
                min(max_new_tokens, length),
                length,
                ignore_eos=ignore_eos,
            )
        )


def loaded(run: Run, interface: Interface, free: tuple[str, ...], content: bytes = b"") -> LoadedProgram:
    """A program in place of its network; the arguments are those of :class:`LoadedProgram`."""
    kind = LoadedProgram if interface.answer_length is None else LoadedTranslator
    return kind(run, interface, free, content)
