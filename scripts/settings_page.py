#!/usr/bin/env python
"""Writes docs/reference/settings.md from the class ``Settings``, its docstrings and the options of ``searchr1 serve``.

``.venv/bin/python scripts/settings_page.py`` writes, ``--check`` only tells whether the page is current, and fails
where it is not. A new setting needs nothing here: it stands after the one that it follows in the class. In docstrings
``some_setting`` becomes its variable, and docs/….md a link.
"""

import argparse
import ast
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from typer.main import get_command

from searchr1.cli.main import app
from searchr1.environment import variable_of
from searchr1.settings import Settings
from searchr1.settings_values import field_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "settings.md"
_VARIABLES = {"provider_keys": "SEARCHR1_<NAME>_API_KEY"}
"""Settings that are not the variable of their name."""
_NONE = "–"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: a heading, what stands before and after the table, and the settings that it begins with."""

    title: str
    before: str
    names: str
    after: str = ""


SECTIONS = (
    Section(
        "What is served, and to whom",
        "",
        """model engine_url tokenizer retriever host port workers open served_name models_file api_keys tenant_keys
        admin_key retriever_api_keys share_cache cors_origins page_about page_examples""",
        "`SEARCHR1_DEMO=1` (`--demo`) serves the bundled model on the Atlas world, whose data is in\n"
        "`SEARCHR1_DATA_DIR` (`--data-dir`, `data`), `SEARCHR1_DEMO_WIKI=1` (`--demo-wiki`) the one that\n"
        "`make demo-wiki` made there; none of the three is a setting of the server.",
    ),
    Section(
        "The engine",
        "",
        """engine engine_api_key engine_silence_s engine_cache_salt engine_session_secret engine_priority add_bos
        profile dtype max_num_seqs kv_cache_gib engine_args enforce_eager""",
        "A vLLM 0.32 that you run on a CPU needs `--no-enable-chunked-prefill`: without it, a request with a `seed`\n"
        "whose prompt does not fit into one step kills the engine. The engine started here is set up so; on GPUs\n"
        "nothing is needed.",
    ),
    Section(
        "Bounds of a run",
        "A request may ask for less, never for more.",
        """max_turns max_run_tokens max_completion_tokens max_observation_tokens max_context_tokens max_prompt_tokens
        top_k max_top_k temperature deadline_s max_deadline_s search_timeout_s""",
        "The defaults of turns, tokens and context are those of training: beyond them is what checkpoints have never\n"
        "seen.",
    ),
    Section(
        "Search",
        "[search.md](../guides/search.md) says what each does.",
        "sanitize passage_chars provider_keys redis_url cache search_attempts search_costs_usd",
    ),
    Section(
        "Conversations",
        "",
        """conversation system rewriter rewrite_url rewrite_model rewrite_api_key rewrite_timeout_s max_question_chars
        max_choices""",
    ),
    Section(
        "The server",
        "[What a proxy in front must do](../guides/deploy.md#what-a-proxy-in-front-must-do-and-need-not) has the\n"
        "bounds that are no settings.",
        """max_concurrent_runs max_queued_runs tenant_weights store_runs run_ttl_s run_memory_mib resume_grace_s
        stream_interval_ms heartbeat_s max_connections keep_alive_s header_timeout_s max_header_bytes max_body_bytes
        body_timeout_s drain_s shutdown_grace_s log_level access_log""",
    ),
)
_HEAD = """# Settings

This page lists every setting of the server. `.venv/bin/python scripts/settings_page.py` writes it, from the code.

A setting is an environment variable, `SEARCHR1_` and its name; in code, a field of `searchr1.settings.Settings` by the
name in lower case. Some are options of `searchr1 serve` too, and an option wins. A variable that is unknown, misspelt
or empty stops the start in one line. `SEARCHR1_SECRETS_DIR` names a folder whose files are settings: the file
`searchr1_admin_key` in it holds that key, which then stands neither in the environment nor in a manifest.

All may stand in a TOML file as well:

```toml
# searchr1 serve --config searchr1.toml (or SEARCHR1_CONFIG, which is no setting itself)
model = "searchr1-7b"
engine_url = "http://10.0.0.5:8000"
retriever = "tavily:"
max_turns = 6
[tenant_keys]
acme = ["…"]
[provider_keys]
tavily = "…"
```

Options win over the environment, the environment over the files of `SEARCHR1_SECRETS_DIR`, and these over the file. A
name that is no setting, a value of the wrong type and one out of its bounds stop the start, by file and name. Where
others can read a file that holds secrets, a warning says so (`chmod 600`).

Settings that can't hold together stop the start, by their names. One that was given and has no effect beside the
others, such as `SEARCHR1_ENGINE_API_KEY` without `SEARCHR1_ENGINE_URL`, is named in a warning. `searchr1 serve --check`
tells both and starts nothing; [`searchr1 doctor`](cli.md#searchr1-doctor) looks at what the settings name as well.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(_section(one, names) for one, names in _grouped())])


def _grouped() -> Iterator[tuple[Section, Sequence[str]]]:
    """Yield each section with its settings: those that it names, each followed by the unnamed ones after it."""
    of_section = {name: one for one in SECTIONS for name in one.names.split()}
    followers: dict[str, list[str]] = {name: [] for name in of_section}
    last = next(iter(Settings.model_fields))
    for name in Settings.model_fields:
        if name in of_section:
            last = name
        else:
            followers[last].append(name)
    for one in SECTIONS:
        yield one, [name for named in one.names.split() for name in (named, *followers[named])]


def _section(section: Section, names: Sequence[str]) -> str:
    lines = [f"## {section.title}", ""]
    lines += [section.before, ""] if section.before else []
    lines += ["| variable | type | default | meaning |", "|---|---|---|---|"]
    lines += [_row(name) for name in names]
    lines += ["", section.after] if section.after else []
    return "\n".join(lines) + "\n"


def _row(name: str) -> str:
    option = _OPTIONS.get(variable_of(name))
    meaning = _linked(DOCSTRINGS[name]) + (f" Option `{option}`." if option else "")
    cells = (f"`{_variable(name)}`", _type(name), _default(name), meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _variable(name: str) -> str:
    return _VARIABLES.get(name, variable_of(name))


def _type(name: str) -> str:
    """Return the type with its bounds, in words."""
    field = Settings.model_fields[name]
    if any(getattr(one, "__name__", "") == "NoDecode" for one in field.metadata):
        return ("keys" if "SecretStr" in str(field.annotation) else "texts") + ", comma-separated"
    if name in _VARIABLES:
        return "key"
    schema = dict(_SCHEMA[name])
    for either in schema.pop("anyOf", ()):
        schema |= {} if either["type"] == "null" else either
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema["type"])
    form = {"password": "secret", "path": "file"}.get(schema.get("format", ""))
    word = form or {"string": "text", "boolean": "on or off", "array": "JSON", "object": "JSON"}.get(kind, kind)
    return word + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    if low is not None:
        return f", {low:g} or more"
    if "exclusiveMinimum" in schema:
        return f", above {schema['exclusiveMinimum']:g}"
    if "maxLength" in schema:
        return f", up to {schema['maxLength']} characters"
    return f", up to {schema['maxItems']}" if "maxItems" in schema else ""


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value in ((), {}):
        return _NONE
    return f"`{value}`" if isinstance(value, str) else f"{value:.10g}"


def _linked(text: str) -> str:
    """Return a docstring as Markdown: variables for names of settings, and links for pages."""

    def code(found: re.Match[str]) -> str:
        return f"`{_variable(found[1]) if found[1] in Settings.model_fields else found[1]}`"

    def link(found: re.Match[str]) -> str:
        target = Path(os.path.relpath(ROOT / found[1], PAGE.parent))
        return f"[{target.name}]({target.as_posix()}{found[2]})"

    return re.sub(r"(docs/[\w./-]+\.md)((?:#[\w-]+)?)", link, re.sub(r"``(.+?)``", code, text))


def docstrings(of: type) -> dict[str, str]:
    """Return the docstring of each field that a class declares, in one line, by the field's name.

    A field made by ``field_of(Config, "name")`` that has none has that of its origin.
    """
    [found] = ast.parse(textwrap.dedent(inspect.getsource(of))).body
    assert isinstance(found, ast.ClassDef)
    told = {}
    for node, after in pairwise([*found.body, ast.Pass()]):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            told[node.target.id] = " ".join(str(after.value.value).split())
        elif isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == field_of.__name__:
            origin, name = node.value.args
            told[node.target.id] = docstrings(getattr(sys.modules[of.__module__], ast.unparse(origin)))[
                ast.literal_eval(name)
            ]
    return told


def _options() -> dict[str, str]:
    """Return the options of ``searchr1 serve``, by the variable that says the same."""
    serve: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {one.envvar: one.opts[0] for one in serve.params if isinstance(one.envvar, str)}


_SCHEMA: Mapping[str, Any] = Settings.model_json_schema()["properties"]
_OPTIONS = _options()
DOCSTRINGS = docstrings(Settings)
"""What each setting means, by its name."""


def main() -> int:
    """Write the page, or tell that it is not current. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not current")
    if parser.parse_args().check:
        return int(PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
