"""``searchr1 serve`` with settings that would leave it open by oversight: refused in one line that quotes no value."""

import os
import stat
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from searchr1.cli import main as cli
from searchr1.settings import Settings

SECRET = "hunter2hunter2hunter2"
SERVE = ("serve", "--model", "m", "--retriever", "index:none", "--tokenizer", "t")


class StartedError(Exception):
    """The settings were taken."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("SEARCHR1_"):
            monkeypatch.delenv(name)

    def run(serving: Coroutine[None, None, None]) -> None:
        serving.close()
        raise StartedError

    monkeypatch.setattr("searchr1.gateway.process.uvloop.run", run)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def start(*options: str, **variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["searchr1", *SERVE, *options])
        cli.main()

    return start


@pytest.fixture
def refusal(started: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refuse(*options: str, **variables: str) -> str:
        with pytest.raises(SystemExit) as left:
            started(*options, **variables)
        assert left.value.code == 2
        shown = capsys.readouterr()
        [line] = shown.err.splitlines()
        assert line.startswith("searchr1: ")
        assert line.isprintable()
        assert SECRET not in line + shown.out
        return line

    return refuse


EMPTY_LISTS = ["", " ", "\t", "\n", " \n ", ",", ",,,", " , ,", ",\n,", "\u00a0", "\u2003,", '""', "''", '"",""']
PLACEHOLDERS = ["null", "None", "undefined", "${API_KEYS}", "$(API_KEYS)", "{{ keys }}", "<your-key>", "[]", "{}", "-"]
UNSENDABLE = [
    f"{SECRET} {SECRET}",
    f"{SECRET}\nx",
    f"{SECRET}\r\nX-Evil: 1",
    f"{SECRET}\tx",
    f"{SECRET}\x1b[31m",
    f"{SECRET}\x7f",
    f"{SECRET}é",
    f"\ufeff{SECRET}",
    f"{SECRET}\u202e",
]
JSON_LISTS = [f'["{SECRET}"]', f'["{SECRET}", "b"]', f'{{"acme": ["{SECRET}"]}}', "[", "[1]"]


@pytest.mark.parametrize("value", EMPTY_LISTS + PLACEHOLDERS + UNSENDABLE + [f"good,{UNSENDABLE[0]}"] + JSON_LISTS)
def test_api_keys_that_hold_none_that_can_be_used(refusal: Callable[..., str], value: str) -> None:
    assert "SEARCHR1_API_KEYS" in refusal(SEARCHR1_API_KEYS=value)


@pytest.mark.parametrize("name", ["SEARCHR1_ADMIN_KEY", "SEARCHR1_ENGINE_API_KEY"])
@pytest.mark.parametrize("value", [v for v in EMPTY_LISTS if "," not in v] + PLACEHOLDERS + UNSENDABLE)
def test_single_keys_that_cannot_be_used(refusal: Callable[..., str], name: str, value: str) -> None:
    assert name in refusal("--engine-url", "http://127.0.0.1:1", **{name: value})


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "{",
        "{bad",
        f"{{'acme': ['{SECRET}']}}",
        f'{{"acme": ["{SECRET}"]',
        f'{{"acme": ["{SECRET}"]}} x',
        f"acme={SECRET}",
        "null",
        "[]",
        "1",
        '"acme"',
        "{}",
        '{"acme": []}',
        '{"acme": [""]}',
        '{"acme": [" "]}',
        '{"acme": ["\\n"]}',
        f'{{"acme": ["{SECRET}", ""]}}',
        f'{{"acme": ["{SECRET}\\n"], "b": []}}',
        f'{{"acme": ["{SECRET} x"]}}',
        '{"acme": null}',
        f'{{"acme": "{SECRET}"}}',
        '{"acme": [null]}',
        '{"acme": [1]}',
        f'{{"acme": {{"{SECRET}": 1}}}}',
        f'{{"{SECRET}": "acme"}}',
        f'{{"": ["{SECRET}"]}}',
        f'{{" ": ["{SECRET}"]}}',
        f'{{"a\\nb": ["{SECRET}"]}}',
        f'{{"a": ["{SECRET}"], "b": ["{SECRET}"]}}',
    ],
)
def test_tenant_keys_that_leave_a_tenant_without_one(refusal: Callable[..., str], value: str) -> None:
    assert "SEARCHR1_TENANT_KEYS" in refusal(SEARCHR1_TENANT_KEYS=value)


def test_json_that_is_nested_without_end(refusal: Callable[..., str]) -> None:
    assert "JSON" in refusal(SEARCHR1_TENANT_KEYS="[" * 100_000)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"API_KEYS": SECRET, "ADMIN_KEY": SECRET}, "ADMIN_KEY"),
        ({"TENANT_KEYS": f'{{"a": ["{SECRET}"]}}', "ADMIN_KEY": f" {SECRET} "}, "ADMIN_KEY"),
        ({"TENANT_KEYS": f'{{"a": ["{SECRET}"]}}', "API_KEYS": f"x1,{SECRET}"}, "TENANT_KEYS"),
        ({"TOP_K": "20"}, "TOP_K"),
        ({"TOP_K": "9", "MAX_TOP_K": "8"}, "MAX_TOP_K"),
        ({"MAX_PROMPT_TOKENS": "5000"}, "MAX_CONTEXT_TOKENS"),
        ({"MAX_CONTEXT_TOKENS": "1024"}, "MAX_PROMPT_TOKENS"),
        ({"DEADLINE_S": "601"}, "MAX_DEADLINE_S"),
        ({"MAX_DEADLINE_S": "5"}, "DEADLINE_S"),
        ({"CACHE_HARD_TTL_S": "5"}, "cache_hard_ttl_s"),
        ({"TAVILY_API_KEY": f"{SECRET}\nx"}, "PROVIDER_KEYS"),
        ({"TAVILY_API_KEY": " "}, "TAVILY_API_KEY"),
        ({"HOST": ""}, "HOST"),
        ({"REDIS_URL": ""}, "REDIS_URL"),
        ({"ENGINE_URL": " "}, "ENGINE_URL"),
    ],
)
def test_settings_that_cannot_stand_together_or_alone(
    refusal: Callable[..., str], variables: dict[str, str], named: str
) -> None:
    line = refusal(**{f"SEARCHR1_{name}": value for name, value in variables.items()})
    assert named in line
    assert "Value error" not in line
    assert ": :" not in line


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SEARCHR1_APIKEYS", "SEARCHR1_API_KEYS"),
        ("SEARCHR1_API_KEYES", "SEARCHR1_API_KEYS"),
        ("searchr1_api_keyss", "SEARCHR1_API_KEYS"),
        ("SEARCHR1_TENANTKEYS", "SEARCHR1_TENANT_KEYS"),
        ("SEARCHR1_ADMINKEY", "SEARCHR1_ADMIN_KEY"),
        ("SEARCHR1_MAX_TOPK", "SEARCHR1_MAX_TOP_K"),
        ("SEARCHR1_SECRET_DIR", "SEARCHR1_SECRETS_DIR"),
        ("SEARCHR1_TAVILLY_API_KEY", "SEARCHR1_TAVILY_API_KEY"),
        ("SEARCHR1_REDISURL", "SEARCHR1_REDIS_URL"),
        ("SEARCHR1_SERVICE", "docs/reference/settings.md"),
        ("SEARCHR1_ZZZ", "docs/reference/settings.md"),
        ("SEARCHR1_", "docs/reference/settings.md"),
    ],
)
def test_variables_that_nobody_reads(refusal: Callable[..., str], name: str, meant: str) -> None:
    line = refusal(**{name: SECRET})
    assert name.upper() in line
    assert meant in line


def _unreadable(path: Path) -> None:
    path.write_text(SECRET)
    path.chmod(stat.S_IWUSR)


def _outside(path: Path) -> None:
    (path.parents[1] / "elsewhere").write_text(SECRET)
    path.symlink_to(path.parents[1] / "elsewhere")


BAD_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty": ("searchr1_api_keys", lambda path: path.write_text("")),
    "blank": ("searchr1_api_keys", lambda path: path.write_text(" \n")),
    "commas": ("searchr1_api_keys", lambda path: path.write_text(",\n")),
    "a folder": ("searchr1_api_keys", lambda path: path.mkdir()),
    "a pipe": ("searchr1_api_keys", os.mkfifo),
    "no text": ("searchr1_api_keys", lambda path: path.write_bytes(b"\xff\xfe" + SECRET.encode())),
    "huge": ("searchr1_api_keys", lambda path: path.write_text(SECRET * 100_000)),
    "leads nowhere": ("searchr1_api_keys", lambda path: path.symlink_to("nothing")),
    "leads out": ("searchr1_api_keys", _outside),
    "two lines": ("searchr1_api_keys", lambda path: path.write_text(f"{SECRET}\n{SECRET}\n")),
    "admin, empty": ("searchr1_admin_key", lambda path: path.write_text("\n")),
    "tenants, no JSON": ("searchr1_tenant_keys", lambda path: path.write_text(f'{{"a": ["{SECRET}"')),
    "unknown": ("searchr1_api_key", lambda path: path.write_text(SECRET)),
    "misspelt": ("SEARCHR1_APIKEYS", lambda path: path.write_text(SECRET)),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_secret_files_that_give_no_key(refusal: Callable[..., str], tmp_path: Path, kind: str) -> None:
    name, write = BAD_FILES[kind]
    folder = tmp_path / "secrets"
    folder.mkdir()
    write(folder / name)
    assert name.lower() in refusal(SEARCHR1_SECRETS_DIR=str(folder)).lower()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_secret_file_that_may_not_be_read(refusal: Callable[..., str], tmp_path: Path) -> None:
    _unreadable(tmp_path / "searchr1_api_keys")
    assert "searchr1_api_keys" in refusal(SEARCHR1_SECRETS_DIR=str(tmp_path))


@pytest.mark.parametrize("kind", ["nothing", "file", "empty", "blank"])
def test_secrets_folders_that_are_none(refusal: Callable[..., str], tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text(SECRET)
    value = {"empty": "", "blank": " "}.get(kind, str(tmp_path / kind))
    assert "SEARCHR1_SECRETS_DIR" in refusal(SEARCHR1_SECRETS_DIR=value)


OPEN_HOSTS = ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "fe80::1", "gateway.local", "searchr1", "127.1", "0", "*"]


@pytest.mark.parametrize("host", OPEN_HOSTS)
@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_host_that_others_reach_needs_keys_or_a_word(
    host: str, by: str, refusal: Callable[..., str], started: Callable[..., None]
) -> None:
    options, variables = (("--host", host), {}) if by == "option" else ((), {"SEARCHR1_HOST": host})
    line = refusal(*options, **variables)
    assert "SEARCHR1_API_KEYS" in line
    assert "--open" in line
    for allowed in (("--open",), {"SEARCHR1_OPEN": "1"}, {"SEARCHR1_API_KEYS": SECRET}):
        more, given = (allowed, {}) if isinstance(allowed, tuple) else ((), allowed)
        with pytest.raises(StartedError):
            started(*options, *more, **variables, **given)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST", "a.localhost"])
def test_a_loopback_host_needs_none(host: str, started: Callable[..., None]) -> None:
    with pytest.raises(StartedError):
        started("--host", host)


def test_the_clients_key_is_not_the_servers(refusal: Callable[..., str], started: Callable[..., None]) -> None:
    assert "SEARCHR1_API_KEYS" in refusal(SEARCHR1_API_KEY=SECRET)
    with pytest.raises(StartedError):
        started("--open", SEARCHR1_API_KEY=SECRET)
    with pytest.raises(StartedError):
        started(SEARCHR1_API_KEY=SECRET, SEARCHR1_API_KEYS=SECRET)


def test_the_demo_is_refused_before_its_world_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["searchr1", "serve", "--demo", "--host", "0.0.0.0", "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "SEARCHR1_API_KEYS" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_clients_and_kubernetes_set_is_no_mistake(started: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "searchr1_api_keys").write_text(f"{SECRET}, other-key\n")
    (tmp_path / "..data").mkdir()
    (tmp_path / "another").write_text("")
    links = {
        "SEARCHR1_SERVICE_HOST": "10.0.0.1",
        "SEARCHR1_SERVICE_PORT": "8000",
        "SEARCHR1_SERVICE_PORT_HTTP": "8000",
        "SEARCHR1_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "SEARCHR1_PORT_8000_TCP_ADDR": "10.0.0.1",
        "SEARCHR1_REDIS_PORT": "tcp://10.0.0.2:6379",
        "SEARCHR1_REDIS_SERVICE_HOST": "10.0.0.2",
        "SEARCHR1_REDIS_PORT_6379_TCP_PROTO": "tcp",
    }
    clients = {"SEARCHR1_URL": "http://x", "SEARCHR1_BASE_URL": "http://x", "SEARCHR1_API_KEY": "k"}
    with pytest.raises(StartedError):
        started(**links, **clients, SEARCHR1_SECRETS_DIR=str(tmp_path), SEARCHR1_DATA_DIR="data")


def test_every_variable_that_an_option_reads_is_known() -> None:
    from typer.main import get_command

    from searchr1.environment import OTHER_VARIABLES

    def variables(command: object) -> set[str]:
        names = {param.envvar for param in command.params if isinstance(param.envvar, str)}  # type: ignore[attr-defined]
        return names.union(*map(variables, getattr(command, "commands", {}).values()))

    read = {name for name in variables(get_command(cli.app)) if name.startswith("SEARCHR1_")}
    assert "SEARCHR1_URL" in read
    assert read <= Settings.variables() | OTHER_VARIABLES
