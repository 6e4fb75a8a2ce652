"""The seven evaluation sets of the paper, in its order, and the hub datasets that hold them."""

SETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
"""The sets' names, as ``data_source`` spells them upstream and FlashRAG names its folders."""
SEVEN = "seven"
"""The name for all of ``SETS``."""

TITLES = {
    "nq": "NQ",
    "triviaqa": "TriviaQA",
    "popqa": "PopQA",
    "hotpotqa": "HotpotQA",
    "2wikimultihopqa": "2WikiMultiHopQA",
    "musique": "MuSiQue",
    "bamboogle": "Bamboogle",
}
"""The sets' titles, as the paper prints them."""

UPSTREAM_REPO = "PeterJinGo/nq_hotpotqa_train"
"""The paper's data: NQ and HotpotQA in ``train.parquet``, all seven in ``test.parquet``, as ``data_source`` says."""
FLASHRAG_REPO = "RUC-NLPIR/FlashRAG_datasets"
"""The sets of the paper among many more, as ``{set}/{split}.jsonl``."""

VERL_PREFIX = "searchR1_"
"""Prefix of a set's name in ``data_source`` by which verl's own reward knows it; upstream has none."""

_ALIASES = {
    "naturalquestions": "nq",
    "tqa": "triviaqa",
    "trivia": "triviaqa",
    "hotpot": "hotpotqa",
    "2wiki": "2wikimultihopqa",
    "2wikimultihop": "2wikimultihopqa",
}


def set_named(name: str) -> str | None:
    """Return the set that is meant, or None. Case and verl's prefix ``searchR1_`` make no difference.

    >>> set_named("MuSiQue"), set_named("searchR1_nq"), set_named("2Wiki"), set_named("squad")
    ('musique', 'nq', '2wikimultihopqa', None)
    """
    plain = name.lower().removeprefix(VERL_PREFIX.lower())
    plain = _ALIASES.get(plain, plain)
    return plain if plain in SETS else None
