"""The seven evaluation sets of the paper, in its order, and the hub datasets that hold them."""

SETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
"""As ``data_source`` spells them upstream, and as FlashRAG names its folders."""
SEVEN = "seven"
"""Names all of ``SETS``."""

TITLES = {
    "nq": "NQ",
    "triviaqa": "TriviaQA",
    "popqa": "PopQA",
    "hotpotqa": "HotpotQA",
    "2wikimultihopqa": "2WikiMultiHopQA",
    "musique": "MuSiQue",
    "bamboogle": "Bamboogle",
}
"""As the paper prints them."""

UPSTREAM_REPO = "PeterJinGo/nq_hotpotqa_train"
"""``train.parquet``: NQ and HotpotQA. ``test.parquet``: all seven sets, told apart by ``data_source``."""
FLASHRAG_REPO = "RUC-NLPIR/FlashRAG_datasets"
"""``{set}/{split}.jsonl``, the sets of the paper among many more."""

VERL_PREFIX = "searchR1_"
"""Before the set's name in ``data_source``, where verl's own reward is to know it; upstream has none."""

_ALIASES = {
    "naturalquestions": "nq",
    "tqa": "triviaqa",
    "trivia": "triviaqa",
    "hotpot": "hotpotqa",
    "2wiki": "2wikimultihopqa",
    "2wikimultihop": "2wikimultihopqa",
}


def set_named(name: str) -> str | None:
    """The set that is meant, or None. Case, and verl's prefix ``searchR1_``, make no difference.

    >>> set_named("MuSiQue"), set_named("searchR1_nq"), set_named("2Wiki"), set_named("squad")
    ('musique', 'nq', '2wikimultihopqa', None)
    """
    plain = name.lower().removeprefix(VERL_PREFIX.lower())
    plain = _ALIASES.get(plain, plain)
    return plain if plain in SETS else None
