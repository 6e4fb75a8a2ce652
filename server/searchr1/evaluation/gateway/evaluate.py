"""The evaluation of a served model: ask a gateway every question of a dataset, and score what comes back."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from searchr1.errors import ConfigurationError, DatasetError
from searchr1.evaluation.asking import one_pass
from searchr1.evaluation.datasets import DATA_DIR, load_questions
from searchr1.evaluation.gateway.asker import Asker
from searchr1.evaluation.records import Extractor, chosen_options
from searchr1.evaluation.report import CLOSED_BOOK, SEARCH, Report, Summary
from searchr1.files import refused
from searchr1_client import RunOptions


def evaluate(
    dataset: str,
    *,
    url: str,
    split: str = "test",
    limit: int | None = None,
    data_dir: Path = DATA_DIR,
    data: str | None = None,
    concurrency: int = 16,
    api_key: str | None = None,
    closed_book: bool = False,
    extractor: Extractor = "own",
    out: Path | None = None,
    on_bad: Callable[[DatasetError], None] = refused,
    progress: bool = True,
    **options: Unpack[RunOptions],
) -> Report:
    """Ask the gateway at ``url`` the questions of ``dataset``, as ``load_questions`` reads it, and score the answers.

    Runs are greedy unless ``options`` set a temperature; the other options that are left out are the server's choice.
    With ``closed_book`` the same questions are asked again with search off. ``out`` gets one JSON line per question
    (the closed-book ones go to ``….closed-book.jsonl`` and the summary to ``….summary.json`` beside it); questions that
    it already answers are not asked again. A run that fails counts as wrong, and where all
    fail there is no score; ``on_bad`` hears of malformed questions, which are left out unless it raises. Ctrl-C loses
    nothing that ``out`` holds.

    Raises:
        DatasetError: the questions or ``out`` cannot be read.
        ConfigurationError: the options or ``out`` do not fit.
        GatewayError: the gateway cannot be reached or refuses everything.
        EvaluationError: every run failed.
    """
    if options.get("temperature") is None:
        options["temperature"] = 0.0
    max_searches = options.get("max_searches")
    if closed_book and max_searches == 0:
        raise ConfigurationError("max_searches is 0, so every run is closed-book already; leave one of the two out")
    if concurrency < 1 or (limit is not None and limit < 1):
        raise ConfigurationError("concurrency and limit must be at least 1")
    questions = load_questions(dataset, split=split, limit=limit, data_dir=data_dir, data=data, on_bad=on_bad)

    asker = Asker(url, api_key, options, extractor, concurrency)
    name = CLOSED_BOOK if max_searches == 0 else SEARCH
    searching, _ = asyncio.run(one_pass(name, questions, asker, chosen_options(options), out, progress))
    closed: Summary | None = None
    if closed_book:
        options = options | RunOptions(max_searches=0)
        asker = Asker(url, api_key, options, extractor, concurrency)
        closed_out = out.with_suffix(f".closed-book{out.suffix}") if out is not None else None
        closed, _ = asyncio.run(one_pass(CLOSED_BOOK, questions, asker, chosen_options(options), closed_out, progress))
    report = Report(dataset=dataset, split=split, url=url, searching=searching, closed_book=closed)
    report.write_beside(out)
    return report
