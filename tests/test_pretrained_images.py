"""Vision transformers from checkpoints: equal to transformers, searched on folders of images, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from image_files import write_images
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn

from search.budget.scale import register_resolvers
from search.compress.library import Library
from search.compress.options import Options
from search.compress.prepare import validate_compression
from spaces.attention import Shape
from spaces.attention.softmax import SoftmaxAttention
from spaces.build import build, invalid_corners
from spaces.dimensions import ConfigError
from spaces.instantiate import instantiate
from spaces.models.checkpoint import Checkpoint
from spaces.models.families import FAMILIES
from spaces.models.pretrained import PretrainedEncoder
from spaces.space import Space
from spaces.tasks import Batch, Task, TaskSpec
from spaces.tasks.images import Images
from spaces.tasks.sources.image_patches import square_grid

CONF = Path(__file__).parents[1] / "conf"
SIDE, PATCH = 12, 4
WIDTH, HEADS, LAYERS = 24, 4, 3
SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 30,
    "image_size": SIDE,
    "patch_size": PATCH,
}
IMAGE_FAMILIES = [name for name, each in FAMILIES.items() if each.patches]
MEAN, STD = [0.4, 0.5, 0.3], [0.2, 0.3, 0.25]
GRID = square_grid(SIDE, "rgb", PATCH)


def write_model(folder, family, *, head=False, **changes):
    """A random checkpoint as transformers writes it; returns its model."""
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SMALL, **changes)
    if head:  # AutoModelForImageClassification does not know which of DeiT's heads a config without weights means
        kind = {"vit": transformers.ViTForImageClassification, "deit": transformers.DeiTForImageClassification}[family]
        model = kind(config).eval()
    else:
        model = transformers.AutoModel.from_config(config).eval()
    for parameter in model.parameters():  # class tokens, biases and norms are 0 and 1 otherwise
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


def encoder(folder, spec=None, **settings):
    spec = spec or GRID.spec(classes=2)
    length = spec.length + len(FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]].class_tokens)
    mechanisms = [SoftmaxAttention(Shape(WIDTH, HEADS, length, causal=False)) for _ in range(LAYERS)]
    return PretrainedEncoder(mechanisms, spec=spec, checkpoint=str(folder), width=WIDTH, **settings).eval()


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_hidden_states_are_those_of_transformers(family, head, normalised, tmp_path):
    model = write_model(tmp_path, family, head=head)
    mean, std = (MEAN, STD) if normalised else ([0.5] * 3, [0.5] * 3)
    if normalised:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    images = torch.randint(256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean, std = (torch.tensor(each)[:, None, None] for each in (mean, std))
    network = encoder(tmp_path)
    with torch.inference_mode():
        states, padding = network.hidden_states(Batch(GRID.tokens(images), None, torch.empty(0)))
        base = getattr(model, model.base_model_prefix) if head else model
        theirs = base((images / 255 - mean) / std).last_hidden_state
        torch.testing.assert_close(network.final_norm(states[-1]), theirs, rtol=1e-5, atol=1e-5)
    assert padding is None


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder)
    return folder


def tree(folder, *, family, **model):
    return {
        "attention": {
            "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
            "linformer": {"_target_": "spaces.attention.linformer.LinformerAttention", "rank": 2},
            "none": {"_target_": "spaces.models.block.NoAttention"},
        },
        "pattern": {"each": {"choice": ["softmax", "linformer", "none"]}},
        "input": {"patch": PATCH},
        "model": {
            "_target_": "spaces.models.pretrained.PretrainedEncoder",
            "checkpoint": str(folder),
            "depth": LAYERS,
            "width": WIDTH,
            "heads": HEADS,
            "class_tokens": len(FAMILIES[family].class_tokens),
            "feed_forward": {"each": {"choice": [0, 1.0]}},
            "pooling": "first",
            **model,
        },
        "train": {"epochs": 1, "lr": 1e-3},
        "compression": {"steps": 2},
    }


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_a_vision_transformer_is_searched_on_folders_of_images(family, pictures, tmp_path):
    write_model(tmp_path, family)
    task = Images(folder=str(pictures), side=SIDE)
    space = Space(tree(tmp_path, family=family))
    assert invalid_corners(space, task) == []
    options = Options(space)
    library = Library(tmp_path / "a", options, task, build(options.parent, task), tokens=300, steps=2, lr=1e-2, seed=0)
    library.make()
    assert library.is_complete
    assert library.damage_of(options.parent) == pytest.approx(0, abs=1e-6)
    for replacement in options.replacements():
        single = library.damage_of(options.replaced([replacement]))
        assert single == pytest.approx(library.entry(replacement).damage, abs=1e-5)


@pytest.mark.slow
def test_the_space_pretrained_takes_its_input_from_the_checkpoint(pictures, tmp_path):
    write_model(tmp_path, "deit")
    register_resolvers()
    images = ["task=images", f"task.folder={pictures}", f"task.side={SIDE}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = compose("config", overrides=["+space=pretrained", f"space.model.checkpoint={tmp_path}", *images])
        config = OmegaConf.to_container(found, resolve=True)
    space = Space(config["space"])
    assert space.input == {"tokens": None, "special_tokens": None, "length": None, "patch": PATCH}
    assert (space.model["class_tokens"], space.model["pooling"]) == (2, "first")
    validate_compression(space, None)
    assert invalid_corners(space, instantiate(Task, config["task"], "task")) == []


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        (
            {},
            {"side": 16},
            "16 patches of images of 3 x 16 x 16; the checkpoint reads 3 x 12 x 12, in patches",
        ),
        ({}, {"channels": "gray"}, "images of 1 x 12 x 12; .* task.side=12 task.channels=rgb space.input.patch=4$"),
        ({"class_tokens": 0}, {}, "class_tokens=0: it must be the checkpoint's, 1"),
        ({"class_tokens": -1}, {}, "class_tokens=-1: it must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(changes, settings, message, pictures, tmp_path):
    write_model(tmp_path, "vit")
    task = Images(folder=str(pictures), **{"side": SIDE, **settings})
    architecture = Options(Space(tree(tmp_path, family="vit"))).parent
    with pytest.raises(ConfigError, match=message):
        build({**architecture, "model": {**architecture["model"], **changes}}, task)


def test_texts_are_refused(tmp_path):
    write_model(tmp_path, "vit")
    with pytest.raises(ValueError, match=r"^this checkpoint classifies images: the task must be one of images"):
        encoder(tmp_path, TaskSpec(length=9, vocabulary=5, classes=2, per_token=False))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"patch_size": 5}, "images of 12 pixels and 3 channels in patches of 5 are not supported"),
        ("config.json", {"image_size": [12, 8]}, r"image_size=\[12, 8\] is not supported; it must be one number"),
        ("config.json", {"num_channels": None}, "num_channels=None: it must be a whole number"),
        ("config.json", {"qkv_bias": False}, "qkv_bias=False is not supported; it must be True"),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, "std must be above 0"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "they must have a number per channel, 3"),
        ("preprocessor_config.json", {"image_mean": 0.5}, "they must have a number per channel, 3"),
        ("preprocessor_config.json", {"image_std": [None, 1, 1]}, "they must have a number per channel, 3"),
        ("preprocessor_config.json", {"do_rescale": False}, "do_rescale=False is not supported; it must be True"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_refused(file, changes, message, tmp_path):
    write_model(tmp_path, "vit")
    path = tmp_path / file
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | changes))
    with pytest.raises(ValueError, match=message):
        encoder(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "no JSON"), ("[]", "it must be a JSON object")])
def test_a_file_of_the_preprocessor_that_is_damaged_is_refused(text, message, tmp_path):
    write_model(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"preprocessor_config\.json: {message}"):
        encoder(tmp_path)


def test_images_that_are_not_to_be_normalised_are_read_as_they_are(tmp_path):
    write_model(tmp_path, "vit")
    known = {"do_normalize": False, "image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(known))
    image = Checkpoint(str(tmp_path)).image
    assert (image.mean, image.std) == ((0.0,) * 3, (1.0,) * 3)


def test_a_table_of_positions_of_another_shape_is_refused(tmp_path):
    write_model(tmp_path, "vit")
    weights = load_file(tmp_path / "model.safetensors")
    name = "embeddings.position_embeddings"
    save_file(weights | {name: weights[name][:, :5].contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=rf"{name} has shape \(1, 5, 24\); config.json says \(1, 10, 24\)"):
        encoder(tmp_path)
