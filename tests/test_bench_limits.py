"""Where the time of a mechanism goes: operators of known kinds, and the table."""

import time

import pytest
import torch

from spaces.bench.limits import limits, main

A = torch.ones(256, 256)


def slept():
    A.clone()
    time.sleep(0.02)


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (lambda: A @ A, "products"),
        (lambda: torch.cat([A, A]), "copies"),
        (lambda: A.exp(), "others"),
        (
            lambda: torch.nn.functional.scaled_dot_product_attention(A[None, None], A[None, None], A[None, None]),
            "fused",
        ),
        (slept, "outside"),
    ],
)
def test_most_of_the_time_is_in_the_operator_that_was_called(step, share):
    found = limits(step)
    shares = {name: getattr(found, name) for name in ("products", "fused", "copies", "others", "outside")}
    shares |= {"outside": shares["outside"] * (share == "outside")}  # the profiler's own, for such short passes
    assert max(shares, key=shares.get) == share
    assert found.ms > 0


def test_bytes_are_those_of_the_arguments_and_operations_those_of_the_products():
    assert limits(lambda: A.exp()).megabytes == pytest.approx(A.numel() * 4 / 1e6)
    found = limits(lambda: A @ A)
    assert found.megabytes == 0
    assert found.gflops * found.products * found.ms == pytest.approx(2 * 256**3 / 1e6, rel=1e-3)


def test_the_command_prints_a_row_per_implementation(capsys):
    assert main(["--only", "linear", "--length", "128", "--batch", "1", "--pass", "forward+backward"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert {"softmax", "linear", "linear-causal"} <= set(rows)
    assert main(["--only", "nothing"]) == 2
    assert main(["--length", "0"]) == 2
