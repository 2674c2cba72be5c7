"""A support vector machine with a Gaussian (RBF) kernel on the numbers of an image, spectrogram or sequence of frames.

Cortes and Vapnik, "Support-Vector Networks", 1995. The kernel matrix is computed by one matrix product, which is many
times faster than scikit-learn's own loop over pairs.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.baselines import Baseline, training_rows
from spaces.tasks import Batch, Task

MAX_SUPPORT = 5_000  # training examples: the kernel matrix of so many takes 200 MB
MAX_NUMBERS = 4_096  # of an example; longer ones are averaged over neighbouring positions
PENALTY = 10.0  # of a violated margin


class Svm(Baseline):
    """One class per sequence of frames, or of ids that are quantities such as gray levels.

    Args:
        numbers: ``values``, all numbers of the sequence, or ``statistics``, the mean and standard deviation over the
            sequence of each feature.
    """

    def __init__(self, numbers: Literal["values", "statistics"]) -> None:
        super().__init__()
        self.numbers = numbers
        self.name = f"RBF SVM on {'all values' if numbers == 'values' else 'means and deviations'}"

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        self.length, self.classes = task.spec.length, task.spec.classes
        examples = training_rows(task, MAX_SUPPORT)
        self.scaler = StandardScaler()
        self.support = self.scaler.fit_transform(self._numbers(examples))
        self.gamma = 1 / max(1, int(np.count_nonzero(self.scaler.var_)))  # 1 / (numbers * variance)
        self.model = SVC(C=PENALTY, kernel="precomputed")  # one against one, decided by votes
        self.model.fit(self._kernel(self.support), examples.labels.numpy())

    def forward(self, batch: Batch) -> Tensor:
        """See :meth:`Baseline.forward`."""
        kernel = self._kernel(self.scaler.transform(self._numbers(batch)))
        margins = torch.from_numpy(self.model.decision_function(kernel))
        if margins.dim() == 1:  # of two classes, that of the second
            margins = torch.stack([-margins, margins], dim=1)
        logits = torch.full((len(margins), self.classes), -torch.inf)
        logits[:, self.model.classes_] = margins.float()
        return logits

    def _kernel(self, examples: Any) -> Any:
        from sklearn.metrics.pairwise import rbf_kernel

        return rbf_kernel(examples, self.support, gamma=self.gamma)

    def _numbers(self, batch: Batch) -> Any:
        """The numbers of each example, ``(batch, numbers)``."""
        frames = batch.inputs.float()
        frames = frames[..., None] if frames.dim() == 2 else frames
        present = torch.ones(frames.shape[:2]) if batch.padding is None else (~batch.padding).float()
        frames = frames * present[..., None]
        if self.numbers == "statistics":
            count = present.sum(1).clamp(min=1)[:, None]
            mean = frames.sum(1) / count
            variance = (((frames - mean[:, None]) * present[..., None]) ** 2).sum(1) / count
            return torch.cat([mean, variance.sqrt()], dim=1).numpy()
        frames = F.pad(frames, (0, 0, 0, self.length - frames.shape[1]))  # batches are cut to their longest example
        positions = max(1, MAX_NUMBERS // frames.shape[2])
        if frames.shape[1] > positions:
            frames = F.adaptive_avg_pool1d(frames.mT, positions).mT
        return frames.flatten(1).numpy()
