"""docs/guides/clients.md: its examples run, its versions are those that were tested, its table has every client."""

import json
import re
import subprocess
from importlib.metadata import version

import pytest

from tests.gateway.conftest import MODEL, Stage

from .clients import CLIENTS, CLIENTS_PYTHON, ENVIRONMENT, NODE, PYTHON, skip_without
from .conftest import NODE as NODE_FOLDER
from .conftest import VENV
from .stages import ANSWER
from .table import DOCS, documented

PAGE = DOCS.read_text("utf-8")
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
JAVA = """
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat >"$folder/Ask.java" <<'END'
{code}
END
java "$folder/Ask.java"
"""
del SECTIONS["Harnesses, load tools and routers"]  # Its examples are run by test_programs.py.
EXAMPLES = [
    (title, language, code)
    for title, section in SECTIONS.items()
    for language, code in re.findall(r"```(python|js|console|java)\n(.*?)```", section, re.DOTALL)
]


def command_of(title: str, language: str, code: str) -> list[str]:
    if language == "js":
        return [str(NODE), "--input-type=module", "--eval", code]
    if language == "console":
        return ["bash", "-c", code.removeprefix("$ ")]
    if language == "java":
        skip_without("javac")
        return ["bash", "-c", JAVA.format(code=code)]
    python = CLIENTS_PYTHON if title.startswith(("`langchain-openai`", "`litellm`")) else PYTHON
    return [str(python), "-c", code]


@pytest.mark.parametrize(("title", "language", "code"), EXAMPLES)
def test_the_examples_run(title: str, language: str, code: str, answering: Stage) -> None:
    here = code.replace("http://127.0.0.1:8000", answering.url).replace("searchr1-atlas", MODEL)
    done = subprocess.run(
        command_of(title, language, here),
        cwd=NODE_FOLDER,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, ANSWER in done.stdout) == (0, True), done.stderr
    assert "Mali" in done.stdout


def test_every_section_has_an_example() -> None:
    assert {title for title, _, _ in EXAMPLES} == {title for title in SECTIONS if not title.startswith("Open WebUI")}


def test_the_table_has_every_client() -> None:
    assert list(documented()) == [*(client.name for client in CLIENTS), "Open WebUI", "the browser page"]


def test_the_versions_are_those_that_run() -> None:
    node = json.loads((NODE_FOLDER / "package.json").read_text("utf-8"))["devDependencies"]
    for name in ("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible"):
        assert f"`{name}` {node[name]}" in PAGE
    assert f"## `openai` {version('openai')}\n" in PAGE
    assert f"## `openai` for JavaScript {node['openai']}," in PAGE
    locked = (VENV.parent / "requirements" / "clients.lock").read_text("utf-8")
    for name in ("langchain-openai", "litellm"):
        found = re.search(rf"^{name}==(\S+)", locked, re.MULTILINE)
        assert found is not None
        assert f"## `{name}` {found[1]}\n" in PAGE
    setup = (VENV.parent / "scripts" / "setup-open-webui").read_text("utf-8")
    for written in re.findall(r"open-webui==([\d.]+)", setup + PAGE):
        assert f"## Open WebUI {written}\n" in PAGE
