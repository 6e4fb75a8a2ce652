"""The file of settings: what it may say, who overrules it, and what is told of one that is wrong."""

import os
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.settings import Settings
from searchr1.settings_file import SettingsFile, read_settings_file

SECRET = "hunter2hunter2hunter2"
WHOLE = f"""
model = "m"
retriever = "tavily:"
api_keys = ["{SECRET}", "another-key-0123456789"]
cors_origins = ["https://a.example"]
page_examples = ["What is it?"]
log_level = "WARNING"
deadline_s = 20
models_file = "models.toml"
open = true
[tenant_keys]
acme = ["key-of-acme-0123456789"]
[provider_keys]
tavily = "tvly-{SECRET}"
[engine_args]
tensor_parallel_size = 8
[search_costs_usd]
tavily = 1
[cache_ttls_s]
tavily = [60, 3600]
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("SEARCHR1_"):
            monkeypatch.delenv(name)


def written(folder: Path, text: str, *, mode: int = 0o600) -> SettingsFile:
    path = folder / "searchr1.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return read_settings_file(path, Settings.model_fields)


def test_every_kind_of_value_is_taken(tmp_path: Path) -> None:
    settings = Settings.load(file=written(tmp_path, WHOLE))
    assert [key.get_secret_value() for key in settings.api_keys] == [SECRET, "another-key-0123456789"]
    assert settings.tenant_keys["acme"][0].get_secret_value() == "key-of-acme-0123456789"
    assert settings.provider_keys["tavily"].get_secret_value() == f"tvly-{SECRET}"
    assert (settings.deadline_s, settings.log_level, settings.open) == (20.0, "warning", True)
    assert (settings.cors_origins, settings.page_examples) == (("https://a.example",), ("What is it?",))
    assert (settings.models_file, settings.engine_args) == (Path("models.toml"), {"tensor_parallel_size": 8})
    assert settings.cache_ttls_s == {"tavily": (60.0, 3600.0)}


def test_the_environment_wins_over_the_file_and_an_option_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, WHOLE + "[tenant_weights]\nacme = 2\n")
    monkeypatch.setenv("SEARCHR1_DEADLINE_S", "30")
    monkeypatch.setenv("searchr1_log_level", "error")
    monkeypatch.setenv("SEARCHR1_ENGINE_ARGS", '{"seed": 1}')
    monkeypatch.setenv("SEARCHR1_TAVILY_API_KEY", "of-the-environment")
    settings = Settings.load(file=file, model="n", deadline_s=40)
    assert (settings.model, settings.deadline_s, settings.log_level) == ("n", 40.0, "error")
    assert settings.engine_args == {"seed": 1}
    assert settings.provider_keys["tavily"].get_secret_value() == "of-the-environment"
    assert Settings.load(file=file).deadline_s == 30.0


def test_a_secret_file_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "searchr1_api_keys").write_text("of-the-folder-0123456789")
    monkeypatch.setenv("SEARCHR1_SECRETS_DIR", str(secrets))
    [key] = Settings.load(file=written(tmp_path, WHOLE)).api_keys
    assert key.get_secret_value() == "of-the-folder-0123456789"


WRONG = {
    "prot = 1": "prot is no setting; did you mean port?",
    "SEARCHR1_PORT = 1": "SEARCHR1_PORT is no setting; did you mean port?",
    "quite_unknown_thing = 1": "quite_unknown_thing is no setting; see docs/reference/settings.md",
    'tavily_api_key = "k"': "tavily_api_key is no setting; write tavily in [provider_keys]",
    'port = "8000"': "port: Input should be a valid integer",
    "port = 99999999": "port: Input should be less than or equal to 65535",
    "top_k = 1.5": "top_k: Input should be a valid integer",
    'drain_s = "2"': "drain_s: Input should be a valid number",
    "drain_s = nan": "drain_s: Input should be greater than or equal to 0",
    "open = 1": "open: Input should be a valid boolean",
    "model = 5": "model: Input should be a valid string",
    "model = 2020-01-01": "model: its value is of the wrong type",
    'model = ""': "model is there but empty",
    "log_level = 5": "log_level: Input should be 'debug', 'info', 'warning' or 'error'",
    'log_level = "loud"': "log_level: Input should be 'debug', 'info', 'warning' or 'error'",
    f'api_keys = ["{SECRET}", 5]': "api_keys: Input should be a valid string",
    f'api_keys = ["{SECRET} x"]': "api_keys: no client can send this key",
    "[tenant_keys]": "tenant_keys is there but empty",
    f'[tenant_keys]\nacme = "{SECRET}"': "tenant_keys: Input should be a valid array",
    f'[provider_keys]\ngogle = "{SECRET}"': "provider_keys.gogle is no provider that takes a key; there are brave",
    f'admin_key = "{SECRET}\nx"': "is no TOML: ",
    "port = 1\nport = 2": "is no TOML: ",
    'profile = "search-r2"': "profile: ",
    "top_k = 11": "SEARCHR1_TOP_K is above SEARCHR1_MAX_TOP_K: 11 is more than 10 (settings are from ",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_told_by_its_name_and_key_and_quotes_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(file=written(tmp_path, text), **{"model": "m", "retriever": "r:"} if "model" not in text else {})
    told = str(refused.value)
    assert WRONG[text] in told
    assert str(tmp_path / "searchr1.toml") in told
    assert SECRET not in told
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("content", [None, b"\xff", b"#" * (2**20 + 1)])
def test_a_file_that_can_t_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "searchr1.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"searchr1\.toml"):
        read_settings_file(path, Settings.model_fields)


def test_secrets_that_others_can_read_are_warned_of(tmp_path: Path) -> None:
    [line] = written(tmp_path, WHOLE, mode=0o644).warnings()
    assert "api_keys, tenant_keys, provider_keys" in line
    assert "chmod o-r" in line
    assert written(tmp_path, WHOLE, mode=0o640).warnings() == []
    assert written(tmp_path, 'model = "m"', mode=0o644).warnings() == []
