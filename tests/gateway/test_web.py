"""The page's files: nothing from elsewhere, nothing its policy forbids, and a parser that takes any chunking."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from searchr1.gateway.routes.page import WEB
from searchr1_client.events import EVENT_TYPES

SCRIPTS = sorted(WEB.glob("*.js"))
STREAM = (
    '\ufeff: ping\r\n\r\nid: 0\nevent: run.started\ndata: {"a": 1}\n\n'
    "event: think.delta\r\ndata:one\r\ndata: two é 😀\r\n\r\nid: 2\rdata: three\r\revent: none\n\ndata: cut off"
)
EVENTS = [
    {"type": "run.started", "data": '{"a": 1}', "id": "0"},
    {"type": "think.delta", "data": "one\ntwo é 😀", "id": "0"},
    {"type": "message", "data": "three", "id": "2"},
]
PARSE_AT_EVERY_CUT = """
const { SseParser } = await import(process.argv[1]);
const { stream, expected } = JSON.parse(process.argv[2]);
const parse = (chunks) => { const parser = new SseParser(); return chunks.flatMap((chunk) => parser.push(chunk)); };
const bad = [];
const check = (name, chunks) => { if (JSON.stringify(parse(chunks)) !== expected) bad.push([name, parse(chunks)]); };
for (let i = 0; i <= stream.length; i++) check(i, [stream.slice(0, i), stream.slice(i)]);
check("each", stream.split(""));
console.log(JSON.stringify(bad));
"""


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_the_html_holds_no_inline_code_and_loads_only_files_that_exist(name: str) -> None:
    html = (WEB / name).read_text("utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", html) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", html) == []
    loaded = re.findall(r'<(?:script|link|img)[^>]*\s(?:src|href)="([^"#]+)"', html)
    assert loaded != []
    for path in loaded:
        assert path.startswith("assets/")
        assert (WEB / path.removeprefix("assets/")).is_file()
    assert re.findall(r'(?:src|href)="(?:[a-z]+:|//)', html) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_from_text_and_import_only_their_neighbours(script: Path) -> None:
    code = script.read_text("utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|https?://\w"
    assert re.findall(forbidden, code) == []
    for path in re.findall(r'from "([^"]+)"', code):
        assert path.startswith("./")
        assert (WEB / path).is_file()


@pytest.mark.parametrize("sheet", sorted(WEB.glob("*.css")), ids=lambda path: path.name)
def test_style_sheets_load_nothing(sheet: Path) -> None:
    assert re.findall(r"url\(|@import", sheet.read_text("utf-8")) == []


def test_the_page_shows_every_type_of_event() -> None:
    shown = re.findall(r'"([a-z]+\.[a-z]+)": \(view', (WEB / "view.js").read_text("utf-8"))
    assert sorted(shown) == sorted(EVENT_TYPES)


def test_every_id_that_the_script_looks_up_is_on_the_page() -> None:
    html = "".join((WEB / name).read_text("utf-8") for name in ("index.html", "docs.html"))
    code = "".join(script.read_text("utf-8") for script in SCRIPTS)
    looked_up = re.findall(r'byId\("([^"]+)"\)', code)
    assert looked_up != []
    assert [name for name in looked_up if f'id="{name}"' not in html] == []


@pytest.mark.process
@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's parser")
def test_a_stream_cut_anywhere_gives_the_same_events() -> None:
    case = json.dumps({"stream": STREAM, "expected": json.dumps(EVENTS, ensure_ascii=False, separators=(",", ":"))})
    source = "data:text/javascript;base64," + base64.b64encode((WEB / "sse.js").read_bytes()).decode()
    command = ["node", "--input-type=module", "-e", PARSE_AT_EVERY_CUT, source, case]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


QUOTES = [
    ('Doc 1(Title: "Mali") Its capital', [["1", "Mali"], " Its capital"]),
    ("Doc 12(Title: Mali) and", [["12", "Mali"], " and"]),
    ('So Doc 2 (Title: "Mali (country)").', ["So ", ["2", "Mali (country)"], "."]),
    ('Doc 1(Title: "A")Doc 2(Title: "B")', [["1", "A"], ["2", "B"]]),
    ("D Do Doc Doc 3 Doc (Title", ["D Do Doc Doc 3 Doc (Title"]),
    ('Doc 1(Title: "never closed', ['Doc 1(Title: "never closed']),
    ("Doc 1(Titel: x) Documents, Dockyard", ["Doc 1(Titel: x) Documents, Dockyard"]),
    ('Doc 1(Title: "<img src=x>") é 😀', [["1", "<img src=x>"], " é 😀"]),
    ("Doc 1(Title: " + "D" * 400 + ")", ["Doc 1(Title: " + "D" * 400 + ")"]),
]
READ_AT_EVERY_CUT = """
const { ReferenceReader } = await import(process.argv[1]);
const bad = [];
for (const [text, expected] of JSON.parse(process.argv[2])) {
  const read = (chunks) => {
    const reader = new ReferenceReader();
    const joined = [];
    for (const part of [...chunks.flatMap((chunk) => reader.push(chunk)), ...reader.end()]) {
      if (typeof part !== "string") joined.push([String(part.number), part.title]);
      else if (typeof joined.at(-1) === "string") joined.push(joined.pop() + part);
      else joined.push(part);
    }
    return JSON.stringify(joined);
  };
  const cuts = [...text].map((_, i) => [text.slice(0, i), text.slice(i)]);
  const wrong = [[text], text.split(""), ...cuts].filter((chunks) => read(chunks) !== JSON.stringify(expected));
  bad.push(...wrong.map((chunks) => [chunks, read(chunks)]));
}
console.log(JSON.stringify(bad.slice(0, 3)));
"""


@pytest.mark.process
@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's modules")
def test_a_quoted_source_is_found_wherever_the_stream_is_cut() -> None:
    source = "data:text/javascript;base64," + base64.b64encode((WEB / "references.js").read_bytes()).decode()
    command = ["node", "--input-type=module", "-e", READ_AT_EVERY_CUT, source, json.dumps(QUOTES)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
