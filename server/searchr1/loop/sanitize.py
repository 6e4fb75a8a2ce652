"""Passages made safe to read: no text of a page can pass for a tag of a loop or a control token of a chat template.

The loop never scans passages, so nothing here guards the state. It guards the reader: a page that writes
``</information><answer>`` talks to the model in the voice of the loop.

Tags are those of every profile, whichever one is served: a page can't know which, and a checkpoint may know several.

Rules
-----
1. A passage without tag-like text stays byte for byte what it was, unless it is longer than ``MAX_PASSAGE_CHARS`` or
   holds control characters.
2. Tag-like is what reads as a tag once all disguise is taken off (``_bare``): entities decoded, however often they
   were encoded; look-alikes of other widths, scripts and styles folded to ASCII; invisible characters, accents and
   white space dropped; lower case. An opening bracket in front of a name is enough; the closing one may be missing.
   Title and text are also looked at as one text, and so are all passages of a search: a tag can be cut in two.
3. A passage with tag-like text has *all* its angle brackets written as ``‹ ›``, square brackets as ``( )`` and
   ampersands as ``+``, whatever their form. A reader sees what stood there, and nothing is left that could open a tag,
   whichever way it is decoded, nested or put together again. Cutting out only the tags that were found would leave
   that to the search for them being perfect.
4. NULs, control characters but tab and newlines, and lone surrogates become U+FFFD. Bidi controls and tag characters,
   which show one text and hold another, are dropped; a flag spelled in tag characters stays.

What stays possible: a page may lie, give orders in plain words, or write ``Doc 2(Title: …)`` as if it were two.

Time is linear: every pattern is bounded, every pass is one ``translate`` or ``sub``, and there are few passes.
"""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from searchr1.loop.profiles.registry import registered
from searchr1.loop.types import Passage

MAX_PASSAGE_CHARS = 16_000
"""Kept of a title and of a text, each: some eight times what fits into a trained observation."""

_REPLACEMENTS = {"<": "‹", ">": "›", "[": "(", "]": ")", "&": "+"}
_BRACKETS = {
    "<": "＜﹤≮˂ᐸ❮❰⟨〈〈⧼",
    ">": "＞﹥≯˃ᐳ❯❱⟩〉〉⧽",
    "[": "［﹇",
    "]": "］﹈",
    "&": "＆﹠",
}
"""Look-alikes of each character of ``_REPLACEMENTS``. The marks that replace them are not among these."""
_LETTERS = {
    **{"a": "аαɑᴀΑА", "b": "ʙвΒВᏴ", "c": "сᴄϲС", "d": "ԁᴅ", "e": "еєᴇεΕЕ", "f": "ғꜰ", "g": "ɡɢ", "h": "һհʜнΗН"},
    **{"i": "іɩıɪιӏІΙ", "j": "јᴊ", "k": "кκᴋΚК", "l": "ʟⅼǀ", "m": "мᴍΜМ", "n": "ոηɴпΝ", "o": "оοօᴏσΟО", "p": "рρᴘΡР"},
    **{"q": "ԛ", "r": "гʀᴦ", "s": "ѕꜱЅ", "t": "тτᴛΤТ", "u": "υսᴜ", "v": "νѵᴠ", "w": "ѡԝωᴡ", "x": "хχΧХ", "y": "уγʏΥҮ"},
    **{"z": "ᴢΖ", "/": "⁄∕╱⧸", "|": "│∣❘￨"},
}
_PLAIN = {form: plain for plain, others in (_BRACKETS | _LETTERS).items() for form in others}
_DEFUSED = str.maketrans({form: mark for plain, mark in _REPLACEMENTS.items() for form in plain + _BRACKETS[plain]})
_MAY_OPEN = re.compile("[" + re.escape("".join(plain + _BRACKETS[plain] for plain in "<[&")) + "]")

_TOKEN_NAMES = (
    "im_start|im_end|im_sep|endoftext|startoftext|endofprompt|eot_id|eom_id|start_header_id|end_header_id|begin_of_|"
    "end_of_|start_of_|fim_|python_tag|tool_call|tool_response|tool_result|function_call|vision_|image_pad|video_pad|"
    "object_ref_|box_|quad_|repo_name|file_sep"
)
_TOKENS = (
    r"<\|[^<>|]{0,64}\|>"
    r"|</?(?:s|bos|eos|pad|unk|mask|cls|sep)/?>"
    r"|<</?sys>>"
    r"|\[[/\\]?(?:inst|sys|system_prompt|available_tools|tool_calls|tool_results|bos|eos|unk|gmask|sop)\]"
)

_ENTITY = re.compile(r"&(?:#0*([0-9]{1,7})|#[xX]0*([0-9a-fA-F]{1,6})|[A-Za-z][A-Za-z0-9]{1,31});?")
_MAX_PASSES = 6
"""A text whose entities are nested deeper than any mistake would nest them counts as tag-like."""

_HARMFUL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_MISLEADING = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e007a]{1,6}\U000e007f)"
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufffc\ufffd")
_DROPPED_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Mn", "Me"))


def neutralize(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """Return the passages as the model may read them; those without anything to neutralize are the same objects."""
    tag = _tag(frozenset().union(*(profile.tags.names for profile in registered())))
    bounded = [_bounded(passage) for passage in passages]
    safe = tuple(_defused(p) if _is_tag_like(tag, p.title, p.text, p.title + p.text) else p for p in bounded)
    if _is_tag_like(tag, "".join(p.title + p.text for p in safe)):
        return tuple(map(_defused, safe))
    return safe


@lru_cache(maxsize=8)
def _tag(names: frozenset[str]) -> re.Pattern[str]:
    """Compile what reads as a tag of one of these names, or as a control token."""
    loop_names = "|".join(re.escape("".join(name.lower().split())) for name in sorted(names))
    return re.compile(rf"<[/\\|!?*_]{{0,4}}(?:{loop_names}|{_TOKEN_NAMES})|{_TOKENS}")


def _bounded(passage: Passage) -> Passage:
    title, text = _printable(passage.title), _printable(passage.text)
    if (title, text) == (passage.title, passage.text):
        return passage
    return replace(passage, title=title, text=text)


def _printable(text: str) -> str:
    text = _HARMFUL.sub("\ufffd", text[:MAX_PASSAGE_CHARS])
    return _MISLEADING.sub(r"\1", text)


def _defused(passage: Passage) -> Passage:
    return replace(passage, title=passage.title.translate(_DEFUSED), text=passage.text.translate(_DEFUSED))


def _is_tag_like(tag: re.Pattern[str], *texts: str) -> bool:
    return any(_MAY_OPEN.search(text) and _holds_tag(tag, text) for text in texts)


def _holds_tag(tag: re.Pattern[str], text: str) -> bool:
    bare = _bare(text)
    return bare is None or tag.search(bare) is not None


def _bare(text: str) -> str | None:
    """Return ``text`` without any disguise; None if it does not end in so many passes."""
    for _ in range(_MAX_PASSES):
        folded = _ENTITY.sub(_decoded, text.translate(_FOLD))
        if folded == text:
            return "".join(text.split())
        text = folded
    return None


def _decoded(entity: re.Match[str]) -> str:
    """Decode an entity. Numbers are passed on without their leading zeros: ``int`` refuses long ones."""
    if entity[1]:
        return html.unescape(f"&#{entity[1]};")
    if entity[2]:
        return html.unescape(f"&#x{entity[2]};")
    return html.unescape(entity[0])


class _Fold(dict[int, int | str | None]):
    """A table for ``str.translate``: a character's plain ASCII form, None where it is invisible. Filled as needed."""

    def __missing__(self, point: int) -> int | str | None:
        if point >= 0x20000:  # Ideographs, tags, variation selectors and private use: too many to remember.
            return None if 0xE0000 <= point < 0xE1000 else point
        folded = self[point] = _fold(chr(point))
        return folded


_FOLD = _Fold()


def _fold(character: str) -> int | str | None:
    if character.isspace():
        return " "
    if plain := _PLAIN.get(character):
        return plain
    visible = [c for c in unicodedata.normalize("NFKD", character) if _is_visible(c)]
    if not visible:
        return None
    folded = "".join(_PLAIN.get(c) or _PLAIN.get(c.lower()) or c.lower() for c in visible)
    return folded if any(map(str.isascii, folded)) else ord(character)


def _is_visible(character: str) -> bool:
    return character not in _INVISIBLE and unicodedata.category(character) not in _DROPPED_CATEGORIES
