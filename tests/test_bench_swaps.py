"""What swaps of mechanisms gain: the networks that the command measures, and its table."""

import pytest
import torch
from checkpoints import HEADS, POSITIONS, WIDTH, WORDS, write_checkpoint, write_gpt2

from spaces.attention import Shape
from spaces.attention.softmax import SoftmaxAttention
from spaces.bench.swaps import SWAPS, WHOLE, Body, main
from spaces.models.checkpoint import Checkpoint
from spaces.models.pretrained import PretrainedEncoder
from spaces.spec import TaskSpec
from spaces.tasks import Batch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "bert")


def hidden(network, ids):
    with torch.inference_mode():
        return network.eval().hidden_states(Batch(ids, None, ids))[-1]


def test_the_whole_network_is_that_of_the_checkpoint(checkpoint):
    spec = TaskSpec(length=POSITIONS, vocabulary=len(WORDS), classes=2, per_token=False)
    mechanisms = [SoftmaxAttention(Shape(WIDTH, HEADS, POSITIONS)) for _ in range(Checkpoint(str(checkpoint)).depth)]
    expected = PretrainedEncoder(mechanisms, spec=spec, checkpoint=str(checkpoint), width=WIDTH)
    body = Body(Checkpoint(str(checkpoint)), SWAPS[WHOLE], POSITIONS)
    ids = torch.randint(len(WORDS), (2, POSITIONS), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hidden(body, ids), hidden(expected, ids))


def test_the_table_of_positions_is_repeated_for_longer_texts(checkpoint):
    source = Checkpoint(str(checkpoint))
    table = source.position_table()
    assert torch.equal(Body(source, SWAPS[WHOLE], POSITIONS + 3).positions, torch.cat([table, table[:3]]))


def test_the_command_prints_each_swap_at_each_length(checkpoint, capsys):
    assert main(["--checkpoint", str(checkpoint), "--lengths", "4", "40", "--rounds", "1"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["4", "tokens", "40", "tokens"]
    assert [row[:20].rstrip() for row in rows] == list(SWAPS)
    assert all(row.count(" ms ") == 2 for row in rows)
    assert rows[0].count("1.00x") == 2


def test_what_cannot_be_measured_is_refused(checkpoint, tmp_path, capsys):
    for arguments, message in (
        (["--checkpoint", "missing"], "not found"),
        (["--checkpoint", str(write_gpt2(tmp_path / "gpt2"))], "gpt2 is no encoder of texts"),
        (["--checkpoint", str(checkpoint), "--rounds", "0"], "--rounds=0: it must be at least 1"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
