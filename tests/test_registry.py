"""A registry finds what the modules of a package declare, by name, and tells two of one name apart."""

import sys
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.registry import Registry


@pytest.fixture
def colors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    """A registry of colors whose package has three modules, one of which is not meant."""
    package = tmp_path / "painted"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name in ("red_color", "blue_color", "noise"):
        code = f"from tests.test_registry import COLORS\nCOLORS[-1].add({name!r}, {name.upper()!r})\n"
        (package / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("painted", "painted.red_color", "painted.blue_color", "painted.noise"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    COLORS.append(Registry("color", "painted.*_color"))
    return COLORS[-1]


COLORS: list[Registry[str]] = []


def test_the_modules_that_are_meant_are_imported_at_the_first_question(colors: Registry[str]) -> None:
    assert "painted.red_color" not in sys.modules
    assert colors.all() == {"blue_color": "BLUE_COLOR", "red_color": "RED_COLOR"}
    assert "painted.noise" not in sys.modules
    assert colors.named("red_color") == "RED_COLOR"


def test_an_unknown_name_is_answered_with_the_known_ones(colors: Registry[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^there is no color 'green'; there are blue_color, red_color$"):
        colors.named("green")


def test_a_name_is_taken_once(colors: Registry[str]) -> None:
    colors.add("green", "GREEN")
    colors.add("green", "GREEN")
    with pytest.raises(ValueError, match="two colors are called 'green'"):
        colors.add("green", "grass")


def test_a_copy_takes_what_the_original_does_not_get(colors: Registry[str]) -> None:
    copy = colors.copy()
    copy.add("green", "GREEN")
    assert list(copy.all()) == ["blue_color", "green", "red_color"]
    assert list(colors.all()) == ["blue_color", "red_color"]
