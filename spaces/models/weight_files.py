"""The weights of a checkpoint, in one safetensors file or in several with an index. Nothing is unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor  # slow to import, and not needed to compose a configuration

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class WeightFiles:
    """The tensors of a checkpoint.

    Args:
        folder: of the files.
        prefix: of the names of tensors, where the checkpoint has a head as well.
    """

    folder: Path
    prefix: str

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each tensor."""
        if (self.folder / INDEX).exists():
            return self._indexed()
        from safetensors import safe_open

        path = self.folder / WEIGHTS
        if not path.exists():
            others = [each.name for each in self.folder.glob("*.bin")]
            advice = (
                f"; {others[0]} is not read, as it is pickled: save it with safe_serialization=True" if others else ""
            )
            raise ValueError(f"{self.folder}: no {WEIGHTS}{advice}")
        try:
            with safe_open(path, framework="pt") as file:
                return dict.fromkeys(file.keys(), path)
        except Exception as error:  # the library raises plain exceptions
            raise ValueError(f"{path}: no safetensors: {error}") from error

    def _indexed(self) -> dict[str, Path]:
        index = self.folder / INDEX
        try:
            names = dict(json.loads(index.read_text())["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{index}: it must be a JSON object with weight_map, the file of each tensor") from error
        if missing := next((file for file in names.values() if not (self.folder / str(file)).is_file()), None):
            raise ValueError(f"{index}: it names {missing}, which is not in the folder")
        return {tensor: self.folder / file for tensor, file in names.items()}

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor in float32 by its name without the prefix.

        Raises:
            ValueError: it is missing, has another shape, or has no finite numbers of 16 bits or more.
        """
        from safetensors import safe_open

        # The first checkpoints call the weight and the bias of a layer norm gamma and beta.
        older = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        found = next((each for n in (name, older) for each in (n, self.prefix + n) if each in self.files), None)
        if found is None:
            raise ValueError(f"{self.folder}: the weights have no {name}")
        with safe_open(self.files[found], framework="pt") as file:
            tensor: Tensor = file.get_tensor(found)
        if tensor.shape != shape:
            raise ValueError(f"{self.folder}: {found} has shape {tuple(tensor.shape)}; config.json says {shape}")
        if not tensor.is_floating_point() or tensor.itemsize < 2:
            raise ValueError(
                f"{self.folder}: {found} is of {tensor.dtype}; it must be floating point of 16 bits or more"
            )
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{self.folder}: {found} has numbers that are NaN or infinite")
        return tensor.float()
