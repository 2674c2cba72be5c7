"""The name of a study: that of a folder, and text in HTML, Markdown and shell commands."""

import pytest
from tiny_task import tiny_config

from search.workers.run import run
from spaces.dimensions import ConfigError

SETTINGS = {"n_trials": 1, "budget": None, "patience": None, "min_gain": None, "scale": "auto"}
REFUSED = [
    "../../escaped",
    "..",
    ".hidden",
    "/proc/nope",
    "a/b",
    "a\\b",
    "",
    " a",
    "-rf",
    "a\nb",
    "a\0b",
    "<script>alert(1)</script>",
    "a|b",
    "[a](b)",
    "a;b",
    "$(a)",
    "a'b",
    "x" * 101,
    ["a"],
    5,
    True,
]


@pytest.mark.parametrize("name", REFUSED, ids=repr)
def test_a_name_that_is_no_plain_file_name_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(ConfigError, match=r"study=.*: it must be up to 100 letters"):
        run(tiny_config(tmp_path) | SETTINGS | {"study": name})
    assert not list(tmp_path.iterdir())
    assert not list(tmp_path.parent.glob("escaped*"))


@pytest.mark.parametrize("name", ["nlp-recall", "Übung 2", "a.b,c=1+2@3", "_x", "東京", "x" * 100])
def test_plain_names_are_accepted(tmp_path, name):
    with pytest.raises(ConfigError) as error:
        run(tiny_config(tmp_path) | SETTINGS | {"study": name, "n_trials": -1})
    assert "study" not in str(error.value)
