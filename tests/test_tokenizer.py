"""Reading a checkpoint's tokenizer: special text stays text, templates render as transformers renders them, and a
folder that can't be used says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RawTokenizer

from searchr1.errors import ConfigurationError
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
    "loop controls": "{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "the date": "{{ strftime_now('%Y') | length }}",
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


@pytest.mark.parametrize("template", ["{% if %}", "{{ messages", "{% unknown %}"])
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


def test_a_name_that_the_hub_does_not_give_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def refuse(name: str, **_: object) -> str:
        raise hub.errors.LocalEntryNotFoundError(f"{name} is not cached and the hub can't be reached")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(ConfigurationError, match=r"org/name is neither a folder nor a model.*can't be reached"):
        Tokenizer.load("org/name")


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
