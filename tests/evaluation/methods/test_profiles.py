"""The policy's profile in an evaluation: its loop, the baselines in its format, and what can't be asked."""

import pytest

from searchr1.errors import ConfigurationError
from searchr1.evaluation.baselines.trial import MethodOptions
from searchr1.evaluation.engine.compare import Comparison, compare, method_options
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import Passage
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer
from searchr1_client import RunOptions
from tests.evaluation.methods.test_baselines import QUESTION, Bench

MALI = Passage("1", '"Mali"', "Its capital is Bamako.")
RESEARCH = MethodOptions(baseline_format="search-r1", profile=profile_named("research-base"))
BOXED = " It is \\[ \\boxed{Bamako} \\] </answer>"


async def test_the_loop_runs_with_the_profile(tokenizer: Tokenizer) -> None:
    bench = Bench(tokenizer, ["<search> Mali </search>", f"<answer>{BOXED}"])
    outcome = await bench.ask("search-r1", RESEARCH)
    assert (outcome.status, outcome.answer, outcome.queries) == ("completed", "Bamako", ["Mali"])
    assert bench.read(1).endswith(RESEARCH.profile.observation([MALI]))


async def test_a_baseline_in_format_asks_and_reads_as_the_profile_does(tokenizer: Tokenizer) -> None:
    bench = Bench(tokenizer, [" Doc 1 says it. </think>", BOXED])
    outcome = await bench.ask("rag", RESEARCH)
    turn = f"<think> I need to search for this. </think>\n<search> {QUESTION} </search>"
    pieces = [turn, RESEARCH.profile.observation([MALI]), "<think> Doc 1 says it. </think>\n<answer>"]
    prompt = tokenizer.encode_prompt(RESEARCH.profile.prompt(QUESTION))
    assert list(bench.ids(1)) == [*prompt, *(i for piece in pieces for i in tokenizer.encode(piece))]
    assert outcome.answer == "Bamako"


@pytest.mark.parametrize("method", ["direct", "cot", "rag"])
async def test_an_answer_that_is_not_boxed_is_none(tokenizer: Tokenizer, method: str) -> None:
    bench = Bench(tokenizer, [" Bamako </answer>"] if method == "direct" else [" Hm. </think>", " Bamako </answer>"])
    outcome = await bench.ask(method, RESEARCH)
    assert (outcome.status, outcome.answer) == ("exhausted", None)


async def test_the_plain_format_has_tags_of_its_own(tokenizer: Tokenizer) -> None:
    bench = Bench(tokenizer, [" Bamako </answer>"])
    outcome = await bench.ask("direct", MethodOptions(profile=profile_named("search-o1")))
    assert outcome.answer == "Bamako"


def test_the_setting_chooses_it() -> None:
    settings = Settings(model="m", retriever="none", profile="research", sanitize=False)
    assert method_options(settings, RunOptions(), "plain").profile is profile_named("research")


def test_baselines_that_a_profile_can_t_be_led_through_are_refused() -> None:
    settings = Settings(model="m", retriever="none", profile="search-o1")
    with pytest.raises(ConfigurationError, match="'search-o1' has no tags for thoughts and answers"):
        compare(Comparison(("direct",), baseline_format="search-r1"), settings, RunOptions())


def test_the_reference_extractor_reads_search_r1_alone() -> None:
    settings = Settings(model="m", retriever="none", profile="research")
    with pytest.raises(ConfigurationError, match="reads runs of the profile search-r1, not of research"):
        compare(Comparison(("search-r1",), extractor="reference"), settings, RunOptions())
