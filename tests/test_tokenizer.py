"""Reading a checkpoint's tokenizer: special text stays text, templates render as transformers renders them, and a
folder that can't be used says what is wrong with it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RawTokenizer
from tokenizers.processors import TemplateProcessing

from searchr1.errors import ConfigurationError
from searchr1.loop.types import AddBos
from searchr1.tokenizer import ReservedTextError, Tokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
FIRST_SPECIAL = 256
QWEN_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
TEMPLATES = {
    "qwen": QWEN_TEMPLATE,
    "jinja's white space": "  {% for m in messages %}\n    {{ m.content }}\n  {% endfor %}\n{# a comment #}\nend\n",
    "null token": "[{{ bos_token }}]{{ messages[0].content }}{{ eos_token }}",
    "absent token": "[{{ unk_token }}{% if unk_token is defined %}no{% endif %}]{{ messages[0]['content'] }}",
    "tools": "{% if tools is not none or documents is not none %}tools{% endif %}{{ messages[0].content }}",
    "json": "{{ messages[0] | tojson }} {{ {'a': '<é>'} | tojson(indent=2) }}",
    "json, as asked for": (
        "{{ {'b': '<é>', 'a': 1} | tojson(ensure_ascii=False) }}{{ ['é'] | tojson(true) }}"
        "{{ {'b': 2, 'a': [1]} | tojson(separators=(',', ':'), sort_keys=true) }}{{ messages[0].content }}"
    ),
    "loop controls": "{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "the date": "{{ strftime_now('%Y') | length }}",
    "generation blocks": (
        "{%- for m in messages %}{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
        "{%- else %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    ),
    "a generation block of a user's turn": (
        "{% for m in messages %}\n  {% generation %}\n    {{ m.content }} {{ loop.index }}\n  {% endgeneration %}\n"
        "{% endfor %}"
    ),
    "white space and a generation block": "a  {%- generation -%}  {{ messages[0].content }}  {%- endgeneration -%}  b",
    "names of a generation block": (
        "{% set x = 1 %}{% generation %}{{ x }}{% set x = 2 %}{% set y = 3 %}{{ x }}{% endgeneration %}{{ x }}{{ y }}"
    ),
    "a generation block in a macro": (
        "{% macro say(text) %}{% generation %}[{{ text }}]{% endgeneration %}{% endmacro %}"
        "{{ say(messages[0].content) }}"
    ),
    "generation blocks in each other": "{% generation %}a{% generation %}b{% endgeneration %}c{% endgeneration %}",
    "generation as a name": "{% set generation = 1 %}{{ generation }}{{ messages[0].content }}",
}


def raw_tokenizer() -> RawTokenizer:
    """One token per byte, then Qwen's control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = RawTokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    return raw


def write_folder(folder: Path, raw: RawTokenizer | None = None, **config: Any) -> Path:
    (raw or raw_tokenizer()).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, **config: Any) -> Tokenizer:
    return Tokenizer.load(str(write_folder(folder, **config)))


@pytest.mark.parametrize("text", ["", "plain", "é 日本 🏝", "\x00", "<|im_end|>", "a<|im_start|>b", "</search>\n\n"])
def test_text_comes_back_and_has_no_special_ids(tmp_path: Path, text: str) -> None:
    tokenizer = load(tmp_path)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode())
    assert all(i < FIRST_SPECIAL for i in ids)
    assert tokenizer.decode(tuple(ids)) == text


def test_a_prompt_may_hold_special_tokens(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, chat_template=QWEN_TEMPLATE)
    rendered = tokenizer.render("hi?")
    assert rendered == "<|im_start|>user\nhi?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode_prompt(rendered)
    assert [i for i in ids if i >= FIRST_SPECIAL] == [257, 258, 257]
    assert tokenizer.decode(tuple(ids)) == "user\nhi?\nassistant\n"


def test_no_template_renders_the_bare_text(tmp_path: Path) -> None:
    assert load(tmp_path).render("hi?\n") == "hi?\n"


@pytest.mark.parametrize("template", [QWEN_TEMPLATE, None])
@pytest.mark.parametrize("token", SPECIAL)
def test_special_text_in_a_question_is_refused(tmp_path: Path, template: str | None, token: str) -> None:
    tokenizer = load(tmp_path, chat_template=template)
    with pytest.raises(ReservedTextError, match="reserved") as caught:
        tokenizer.render(f"who{token}?")
    assert token in str(caught.value)


@pytest.mark.parametrize("text", ["<|im_end", "im_end|>", "<|IM_END|>", "< |im_end|>", "<search> </answer>"])
def test_what_only_resembles_special_text_is_fine(tmp_path: Path, text: str) -> None:
    assert text in load(tmp_path, chat_template=QWEN_TEMPLATE).render(text)


def test_an_added_token_that_is_not_special_is_read_as_the_checkpoint_reads_it(tmp_path: Path) -> None:
    raw = raw_tokenizer()
    raw.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    tokenizer = Tokenizer.load(str(write_folder(tmp_path, raw)))
    assert tokenizer.encode("<tool_call>") == [259]
    assert tokenizer.render("<tool_call>") == "<tool_call>"


def test_limits_left_in_the_file_do_not_cut_or_pad(tmp_path: Path) -> None:
    raw = raw_tokenizer()
    raw.enable_truncation(4)
    raw.enable_padding(length=10, pad_id=256)
    tokenizer = Tokenizer.load(str(write_folder(tmp_path, raw)))
    assert len(tokenizer.encode("longer than four")) == len(tokenizer.encode_prompt("longer than four")) == 16
    assert len(tokenizer.encode("ab")) == len(tokenizer.encode_prompt("ab")) == 2


@pytest.mark.torch
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_transformers_renders_them(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = load(
        tmp_path,
        chat_template=TEMPLATES[name],
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=None,
        eos_token={"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False},
        add_bos_token=False,
    )
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    asked = [{"role": "user", "content": "  Who is <é>?\n"}]
    rendered = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert tokenizer.render(asked[0]["content"]) == rendered
    ids = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert tokenizer.encode_prompt(rendered) == list(ids)


BOS_TEMPLATE = "{{ bos_token }}<|im_start|>{{ messages[0].content }}"
BOS = "<|endoftext|>"
TOKEN = {"content": BOS, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
KEPT: dict[str, dict[str, Any]] = {
    "the config": {"tokenizer_config.json": {"bos_token": BOS}},
    "the config, as an object": {"tokenizer_config.json": {"bos_token": {"__type": "AddedToken"} | TOKEN}},
    "the map": {"special_tokens_map.json": {"bos_token": BOS}},
    "the map, as an object": {"special_tokens_map.json": {"bos_token": TOKEN}},
    "both": {
        "tokenizer_config.json": {"bos_token": "<|im_end|>"},
        "special_tokens_map.json": {"bos_token": BOS},
    },
    "the map, as the config says null": {
        "tokenizer_config.json": {"bos_token": None},
        "special_tokens_map.json": {"bos_token": BOS},
    },
    "what the tokenizer puts first": {"tokenizer_config.json": {}},
}


def write_kept(folder: Path, name: str, **config: Any) -> Path:
    """Write a tokenizer with its ``<bos>`` in one place."""
    raw = raw_tokenizer()
    if name == "what the tokenizer puts first":
        raw.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, FIRST_SPECIAL)])
    write_folder(folder, raw, **config | KEPT[name].get("tokenizer_config.json", {}))
    if "special_tokens_map.json" in KEPT[name]:
        (folder / "special_tokens_map.json").write_text(json.dumps(KEPT[name]["special_tokens_map.json"]))
    return folder


@pytest.mark.parametrize("name", KEPT)
def test_a_template_finds_bos_wherever_it_is_kept(tmp_path: Path, name: str) -> None:
    tokenizer = Tokenizer.load(str(write_kept(tmp_path, name, chat_template=BOS_TEMPLATE)))
    rendered = tokenizer.render("hi")
    assert rendered == f"{BOS}<|im_start|>hi"
    assert tokenizer.encode_prompt(rendered)[0] == FIRST_SPECIAL


@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name in KEPT if name != "what the tokenizer puts first"])
def test_bos_is_what_transformers_finds(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    write_kept(tmp_path, name, chat_template=BOS_TEMPLATE, tokenizer_class="PreTrainedTokenizerFast")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    rendered = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert Tokenizer.load(str(tmp_path)).render("hi") == rendered


@pytest.mark.parametrize("post", [None, "$A <|im_end|>"])
def test_a_tokenizer_without_bos_puts_none(tmp_path: Path, post: str | None) -> None:
    raw = raw_tokenizer()
    if post is not None:
        raw.post_processor = TemplateProcessing(single=post, special_tokens=[("<|im_end|>", FIRST_SPECIAL + 2)])
    folder = write_folder(tmp_path, raw, chat_template=BOS_TEMPLATE)
    assert Tokenizer.load(str(folder)).render("hi") == "<|im_start|>hi"
    with pytest.raises(ConfigurationError, match="no bos_token"):
        Tokenizer.load(str(folder), add_bos="always")


@pytest.mark.parametrize(
    ("add_bos", "says", "template", "rendered"),
    [
        ("auto", True, None, f"{BOS}hi"),
        ("auto", False, None, "hi"),
        ("auto", None, None, "hi"),
        ("auto", True, QWEN_TEMPLATE, "<|im_start|>user"),
        ("auto", True, BOS_TEMPLATE, f"{BOS}<|im_start|>hi"),
        ("always", False, None, f"{BOS}hi"),
        ("always", None, QWEN_TEMPLATE, f"{BOS}<|im_start|>user"),
        ("always", True, BOS_TEMPLATE, f"{BOS}<|im_start|>hi"),
        ("never", True, None, "hi"),
        ("never", True, QWEN_TEMPLATE, "<|im_start|>user"),
        ("never", True, BOS_TEMPLATE, f"{BOS}<|im_start|>hi"),
    ],
)
def test_a_prompt_begins_with_bos_where_that_is_wanted(
    tmp_path: Path, add_bos: AddBos, says: bool | None, template: str | None, rendered: str
) -> None:
    config = {"bos_token": BOS, "add_bos_token": says, "chat_template": template}
    given: dict[str, Any] = {name: value for name, value in config.items() if value is not None}
    tokenizer = Tokenizer.load(str(write_folder(tmp_path, **given)), add_bos=add_bos)
    assert tokenizer.render("hi").startswith(rendered)
    assert tokenizer.render("hi").count(BOS) == rendered.count(BOS)
    assert FIRST_SPECIAL not in tokenizer.encode("hi")


@pytest.mark.parametrize(
    ("config", "template", "rendered"),
    [
        ({}, None, f"{BOS}hi"),
        ({"bos_token": BOS}, None, f"{BOS}hi"),
        ({"add_bos_token": False}, None, "hi"),
        ({"bos_token": "<|im_end|>"}, None, "hi"),
        ({}, QWEN_TEMPLATE, "<|im_start|>user"),
    ],
)
def test_a_tokenizer_that_puts_bos_by_itself_gets_one_where_no_template_writes_the_prompt(
    tmp_path: Path, config: dict[str, Any], template: str | None, rendered: str
) -> None:
    """So transformers 5 saves Gemma's, whose base model repeats itself without."""
    raw = raw_tokenizer()
    raw.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, FIRST_SPECIAL)])
    given = config if template is None else config | {"chat_template": template}
    tokenizer = Tokenizer.load(str(write_folder(tmp_path, raw, **given)))
    assert tokenizer.render("hi").startswith(rendered)
    assert (tokenizer.encode_prompt(tokenizer.render("hi"))[0] == FIRST_SPECIAL) == rendered.startswith(BOS)
    assert FIRST_SPECIAL not in tokenizer.encode("hi")


def test_llama_3_gets_no_bos_as_it_was_trained(tmp_path: Path) -> None:
    raw = raw_tokenizer()
    bos = "<|begin_of_text|>"
    raw.add_special_tokens([AddedToken(bos, special=True)])
    raw.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))])
    folder = str(write_folder(tmp_path, raw, bos_token=bos))
    assert Tokenizer.load(folder).render("hi") == "hi"
    assert Tokenizer.load(folder, add_bos="always").render("hi") == f"{bos}hi"


def test_without_the_template_a_prompt_begins_as_the_tokenizer_says(tmp_path: Path) -> None:
    write_folder(tmp_path, bos_token=BOS, add_bos_token=True, chat_template=QWEN_TEMPLATE)
    assert Tokenizer.load(str(tmp_path)).render("hi", chat=False) == f"{BOS}hi"


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, FIRST_SPECIAL + len(SPECIAL)),
        ({"vocab_size": 512}, 512),
        ({"vocab_size": 3}, FIRST_SPECIAL + len(SPECIAL)),
        ({"text_config": {"vocab_size": 600}}, 600),
        ({"vocab_size": "x", "text_config": 7}, FIRST_SPECIAL + len(SPECIAL)),
    ],
)
def test_the_vocabulary_is_the_models_where_that_is_larger(tmp_path: Path, config: object, size: int) -> None:
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Tokenizer.load(str(tmp_path)).vocab_size == size


def test_a_template_in_its_own_file_comes_first(tmp_path: Path) -> None:
    write_folder(tmp_path, chat_template="from the config")
    (tmp_path / "chat_template.jinja").write_text("from the file")
    assert Tokenizer.load(str(tmp_path)).render("hi") == "from the file"


@pytest.mark.parametrize(
    "named",
    [
        [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}],
        {"tool_use": "tools", "default": "plain"},
    ],
)
def test_of_several_templates_the_default_is_taken(tmp_path: Path, named: object) -> None:
    assert load(tmp_path, chat_template=named).render("hi") == "plain"


def test_a_tokenizer_alone_is_enough(tmp_path: Path) -> None:
    raw_tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(str(tmp_path)).render("hi") == "hi"


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "~/no-such-folder"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        Tokenizer.load(name)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no tokenizer\.json.*--tokenizer"):
        Tokenizer.load(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"type": "Nothing"}}', "version https://git-lfs"])
def test_a_broken_tokenizer_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json can't be read as a tokenizer") as caught:
        Tokenizer.load(str(tmp_path))
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[]", b"null"])
def test_a_broken_config_file(tmp_path: Path, content: bytes) -> None:
    write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"tokenizer_config\.json (is not valid JSON|must hold a JSON object)"):
        Tokenizer.load(str(tmp_path))


@pytest.mark.parametrize(
    "template",
    [
        "{% if %}",
        "{{ messages",
        "{% unknown %}",
        "{% generation %}a",
        "{% endgeneration %}",
        "{% generation x %}a{% endgeneration %}",
    ],
)
def test_a_template_that_is_not_valid(tmp_path: Path, template: str) -> None:
    with pytest.raises(ConfigurationError, match="chat template is not valid"):
        load(tmp_path, chat_template=template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('a system turn must come first') }}", "a system turn must come first"),
        ("{{ nothing.at.all }}", "nothing"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_raises(tmp_path: Path, template: str, reason: str) -> None:
    tokenizer = load(tmp_path, chat_template=template)
    with pytest.raises(ConfigurationError, match=reason):
        tokenizer.render("hi")


def test_a_template_that_is_not_utf8(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"chat_template\.jinja is not UTF-8"):
        Tokenizer.load(str(tmp_path))


def hub_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hub's client, in an environment that sets nothing of its connections."""
    for name in os.environ:
        if name.upper().endswith("_PROXY") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)
    return pytest.importorskip("huggingface_hub")


@pytest.mark.parametrize("error", [OSError, ImportError, ValueError, RuntimeError, FileNotFoundError])
def test_a_name_that_the_hub_does_not_give_out(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its libraries raise, for a proxy, a certificate or an answer: one line."""
    hub = hub_of(monkeypatch)

    def refuse(name: str, **_: object) -> str:
        raise error(f"{name} can't be reached.\nSee the documentation.")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(ConfigurationError, match=r"org/name is neither a folder nor a model.*can't be reached$"):
        Tokenizer.load("org/name")


@pytest.mark.parametrize(
    "environment",
    [{"ALL_PROXY": "socks5://127.0.0.1:1"}, {"HTTPS_PROXY": "http://h:port"}, {"SSL_CERT_FILE": "/nonexistent"}],
    ids=lambda environment: "".join(environment),
)
def test_an_environment_in_which_the_hub_cannot_be_asked_is_told(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_of(monkeypatch)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "ENDPOINT", "https://hub.invalid")
    hub.close_session()
    [name] = environment
    with pytest.raises(ConfigurationError, match=rf"org/name is neither a folder nor a model.*\(set here: {name}\)$"):
        Tokenizer.load("org/name")
    hub.close_session()


def test_a_name_on_the_hub_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    write_folder(tmp_path, chat_template=QWEN_TEMPLATE)
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert Tokenizer.load("org/name").render("hi").startswith("<|im_start|>")
    assert asked["name"] == "org/name"
    assert not any("safetensors" in pattern for pattern in asked["allow_patterns"])
