"""What verl has to hold of a case, worked out from the texts with its tokenizer: no loop, no driver, no mask of ours.

Standard library alone, as ``inside.py`` needs it beside verl.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from loadtests.verl.cases import Case

RETRY = (
    "\nMy previous action is invalid. If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n"
)
"""The reference's, ``search_r1/llm_agent/generation.py``."""
STOPS = ("</search>", "</answer>")

Encode = Callable[[str], list[int]]
Passages = Callable[[str], list[tuple[str, str]]]
"""Gives titles and texts of the passages that a query finds."""


@dataclass(slots=True)
class Expected:
    """One trajectory's tokens after the prompt."""

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    completions: list[tuple[str, int]] = field(default_factory=list)
    """Texts that the policy wrote, each with the tokens up to its end."""

    def add(self, ids: list[int], logprobs: list[float] | None = None) -> None:
        """Append tokens: sampled ones, which have logprobs, or put in."""
        self.ids += ids
        self.mask += [int(logprobs is not None)] * len(ids)
        self.logprobs += logprobs or [0.0] * len(ids)

    def cut(self, num_tokens: int) -> "Expected":
        """Return the trajectory's first tokens, and the completions that they hold whole."""
        told = [(text, end) for text, end in self.completions if end <= num_tokens]
        return Expected(self.ids[:num_tokens], self.mask[:num_tokens], self.logprobs[:num_tokens], told)


def logprob(turn: int, position: int) -> float:
    """Return the logprob that the scripted server gives a token: another one for each."""
    return -float(turn + 1) - position / 1024


def kept(text: str) -> str:
    """Return a completion up to its first closing tag that ends a turn."""
    ends = [at + len(stop) for stop in STOPS if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def observation(passages: list[tuple[str, str]]) -> str:
    """Return what the reference puts into the context: ``_passages2string``, between its tags."""
    docs = "".join(f"Doc {n}(Title: {title}) {text}\n" for n, (title, text) in enumerate(passages, start=1))
    return f"\n\n<information>{docs.strip()}</information>\n\n"


def expected(
    case: Case, encode: Encode, passages: Passages, *, max_turns: int, max_observation_tokens: int
) -> Expected:
    """Return the whole trajectory of ``case``, uncut. An answer ends it, or else the bound of turns does."""
    out = Expected()
    for turn, text in enumerate(case.turns):
        written, sampled = kept(text), encode(text)
        ids = encode(written)
        same = next((at for at, (one, other) in enumerate(zip(ids, sampled, strict=False)) if one != other), len(ids))
        # Tokens that reach past the tag were never sampled as they stand.
        out.add(ids, [logprob(turn, at) if at < same else 0.0 for at in range(len(ids))])
        out.completions.append((written, len(out.ids)))
        if written.endswith("</answer>") or turn == max_turns:
            break
        query = written.partition("<search>")[2].partition("</search>")[0].strip()
        has_query = written.endswith("</search>")
        out.add(encode(observation(passages(query)))[:max_observation_tokens] if has_query else encode(RETRY))
    return out
