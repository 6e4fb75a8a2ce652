"""Looking at a checkpoint folder before an engine loads it: what is told, in which words."""

from pathlib import Path

import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.checkpoint import Checkpoint
from searchr1.errors import ConfigurationError
from tests.support.checkpoints import DAMAGES, EMBEDDING, HARMLESS, WEIGHTS, damaged_copy, read_tensors, write_tensors


@pytest.fixture(scope="module")
def served() -> Checkpoint:
    return Checkpoint.read(CHECKPOINT)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_checkpoint_that_fits_is_taken(served: Checkpoint, tmp_path: Path, name: str) -> None:
    checkpoint = Checkpoint.read(damaged_copy(CHECKPOINT, tmp_path / "new", HARMLESS[name]))
    checkpoint.check_replaces(served)
    checkpoint.check_finite()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("garbage", "'model.safetensors' is no safetensors file"),
        ("half a file", "'model.safetensors' is not whole"),
        ("half of the tensors", "the tensor '.+' is missing"),
        ("one tensor lost", "the tensor 'model.norm.weight' is missing"),
        ("one tensor more", "the tensor 'model.extra.weight' is not in the served model"),
        ("a NaN", f"the tensor '{EMBEDDING}' holds values that are not finite"),
        ("an infinity", f"the tensor '{EMBEDDING}' holds values that are not finite"),
        ("a transposed shape", f"the tensor '{EMBEDDING}' is 256 × 2048, and 2048 × 256 in the served model"),
        ("integers", f"the tensor '{EMBEDDING}' is I16, and BF16 in the served model"),
        ("other layers", "config.json has another num_hidden_layers"),
        ("a lost shard", "'two.safetensors' is no file in the folder"),
        ("an empty folder", "there is no config.json"),
        ("no weights", "no \\*.safetensors"),
        ("weights of another form", "no \\*.safetensors"),
    ],
)
def test_what_is_wrong_is_named(served: Checkpoint, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check(damaged_copy(CHECKPOINT, tmp_path / "new", DAMAGES[name]), served)


def check(folder: Path, served: Checkpoint) -> None:
    checkpoint = Checkpoint.read(folder)
    checkpoint.check_replaces(served)
    checkpoint.check_finite()


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("F64", "ffffffffffffef7f", "000000000000f07f"),
        ("F32", "ffff7f7f", "0000807f"),
        ("F32", "ffff7fff", "0000c0ff"),
        ("F16", "ff7b", "007c"),
        ("BF16", "7f7f", "807f"),
        ("F8_E5M2", "7b", "7c"),
        ("F8_E4M3", "7e", "ff"),
        ("F8_E8M0", "fe", "ff"),
    ],
)
def test_what_is_not_finite_is_found_in_every_type(tmp_path: Path, dtype: str, good: str, bad: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    width = len(bytes.fromhex(good))
    for last, is_finite in ((good, True), (bad, False)):
        content = bytes.fromhex(good) * 2_999_999 + bytes.fromhex(last)
        write_tensors(tmp_path / WEIGHTS, {"a": ("I8", [3], b"\xff" * 3), "b": (dtype, [3_000_000], content)})
        assert (tmp_path / WEIGHTS).stat().st_size > 3_000_000 * width
        checkpoint = Checkpoint.read(tmp_path)
        if is_finite:
            checkpoint.check_finite()
        else:
            with pytest.raises(ConfigurationError, match="'b' holds values that are not finite"):
                checkpoint.check_finite()


def test_a_file_that_shrinks_meanwhile_is_told(tmp_path: Path) -> None:
    folder = damaged_copy(CHECKPOINT, tmp_path / "new", lambda _: None)
    checkpoint = Checkpoint.read(folder)
    (folder / WEIGHTS).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="is not whole"):
        checkpoint.check_finite()


def test_names_in_a_file_are_quoted_short_and_without_control_characters(tmp_path: Path, served: Checkpoint) -> None:
    folder = damaged_copy(CHECKPOINT, tmp_path / "new", lambda _: None)
    tensors = read_tensors(folder / WEIGHTS)
    write_tensors(folder / WEIGHTS, tensors | {"\x1b[2J\n" + "x" * 9999: ("F32", [1], b"\0" * 4)})
    with pytest.raises(ConfigurationError) as raised:
        Checkpoint.read(folder).check_replaces(served)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300
