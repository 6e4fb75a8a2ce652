"""The settings of the demo."""

from pathlib import Path

import pytest

from searchr1.demo.bundle import CHECKPOINT, demo_settings
from searchr1.settings import Settings


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder whose index seems to be there."""
    manifest = tmp_path / "atlas" / "index" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    return tmp_path


def test_the_demo_ignores_instructions_and_resolves_follow_ups_by_rules(data_dir: Path) -> None:
    settings = Settings.load(**demo_settings(data_dir))
    assert (settings.conversation, settings.rewriter, settings.system) == ("rewrite", "rules", "ignore")
    assert settings.model == str(CHECKPOINT)


def test_a_run_of_the_demo_ends_soon_after_what_its_model_needs(data_dir: Path) -> None:
    settings = Settings.load(**demo_settings(data_dir))
    assert (settings.max_completion_tokens, settings.max_run_tokens) == (200, 600)


def test_the_environment_chooses_otherwise(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHR1_CONVERSATION", "fold")
    monkeypatch.setenv("SEARCHR1_SYSTEM", "fold")
    monkeypatch.setenv("SEARCHR1_MAX_RUN_TOKENS", "2500")
    settings = Settings.load(**demo_settings(data_dir))
    assert (settings.conversation, settings.rewriter, settings.system) == ("fold", "rules", "fold")
    assert settings.max_run_tokens == 2500
