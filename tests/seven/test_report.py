"""The page of invented results: its numbers, what it says of what is missing, and that no question's text leaves."""

import json
import sys
from pathlib import Path

import pytest

from loadtests.seven import __main__ as command
from loadtests.seven import scores
from loadtests.seven.kept import begun, digest_of, ended, read_kept, records_file, rows_folder
from loadtests.seven.report import comparisons_table, page_of, write_report
from loadtests.seven.rows import COMPARISONS, ROWS, row_named
from loadtests.seven.scores import Results, read_results
from searchr1.data.sets import SETS
from searchr1.errors import DatasetError
from searchr1.evaluation.methods.registry import method_named
from searchr1.evaluation.table.paper import paper_rows
from tests.seven.papers import QUESTIONS, asked_questions, kept, write_row


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results of four rows: direct has a fifth of NQ, RAG half, gold passages all, GRPO all but 2Wiki's odd ones."""
    out = tmp_path / "out"
    out.mkdir()
    questions = asked_questions(out)
    ids = [one.question.id for one in questions]
    write_row(out, kept("direct"), questions, {"nq/q0": True, "nq/q1": True})
    half = dict.fromkeys((*(f"nq/q{n}" for n in range(5)), "squad/q20"), True)
    write_row(out, kept("rag-bm25"), questions, half, searches={1: 1, 2: 1}, failed=("nq/q9",))
    write_row(out, kept("rag-bm25", "sampled-1"), questions, half)
    write_row(out, kept("rag-bm25", "sampled-2", seed=2), questions, {})
    write_row(out, kept("oracle", num_without_gold=2), questions, dict.fromkeys(ids, True))
    odd = {name: not (name.startswith("2wiki") and name[-1] in "13579") for name in ids}
    write_row(out, kept("grpo-bm25", made="RL by GRPO"), questions, odd, searches={1: 1, 2: 2})
    return out


def lines_of(page: str, heading: str, title: str) -> list[list[str]]:
    """Cells of the lines of ours that begin with ``title``, under a heading."""
    return [row for row in all_lines_of(page, heading, title) if "paper" not in row[1]]


def all_lines_of(page: str, heading: str, title: str) -> list[list[str]]:
    """Cells of the lines that begin with ``title``, under a heading."""
    part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
    return [row for row in rows if row[0] == title]


def test_every_row_is_a_method_with_what_it_needs() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert method_named(row.method).searches == (row.searched != "none" or row.max_searches == 0)
    compared = {name for versus in COMPARISONS for name in (*versus.ours, *versus.theirs)}
    assert compared <= {row.name for row in ROWS}
    assert row_named("oracle").top_k == 4
    with pytest.raises(ValueError, match="there is no row 'rug'; there are direct, cot"):
        row_named("rug")


def test_scores_are_by_set_and_their_average_leaves_out_what_stands_apart(out: Path) -> None:
    page = page_of(read_results(out))
    [direct] = lines_of(page, "Exact match, greedy", "Direct")
    assert direct[2] == "0.200"
    assert direct[-2:] == ["0.000", "0.000"]  # SQuAD and yes/no
    # Mean of NQ 0.2, 2Wiki 0 and Bamboogle 0.
    assert direct[9].startswith("0.067 (0.000 to ")
    [rag] = lines_of(page, "Exact match, greedy", "RAG")
    assert (rag[1], rag[2], rag[-2]) == ("BM25", "0.500", "0.100")
    [sampled] = lines_of(page, "Exact match, sampled", "RAG")
    assert (sampled[2], sampled[-2]) == ("0.250", "0.050")
    assert "1 of them ask for yes or no" in page


def test_the_papers_rows_stand_under_ours(out: Path) -> None:
    page = page_of(read_results(out))
    first = paper_rows("qwen2.5-7b")[0]
    ours, seven_b, three_b = all_lines_of(page, "Exact match, greedy", "Direct")
    assert ours[1] == "–"
    assert seven_b[1:9] == ["the paper's qwen2.5-7b", *(f"{first.exact_match[name]:.3f}" for name in SETS)]
    assert three_b[9] == "0.134"
    assert len(all_lines_of(page, "Sub-exact match, greedy", "Direct")) == 1


def test_comparisons_say_what_was_reached_and_what_is_missing(out: Path) -> None:
    lines = {line.split("|")[1].strip(): line for line in comparisons_table(read_results(out)).splitlines()}
    reached = lines["Search-R1 over RAG"]
    assert "grpo-bm25 over rag-bm25" in reached
    assert reached.endswith("| ≥ +20% | reached |")
    assert "| 21 |" in reached  # NQ's 10, 2Wiki's 10, Bamboogle's 1: none of SQuAD's, none that asks for yes or no
    assert lines["Search-R1 over SFT"].endswith("| above the interval | not measured |")


def test_a_loss_and_a_missed_goal_are_told(out: Path) -> None:
    questions = asked_questions(out)
    write_row(out, kept("ppo-bm25"), questions, {})
    results = read_results(out)
    table = comparisons_table(results)
    [line] = [line for line in table.splitlines() if line.startswith("| PPO over GRPO")]
    assert line.endswith("**no, the other way** |")
    only_ppo = Results(tuple(one for one in results.rows if one.row.name != "grpo-bm25"), results.places)
    [line] = [line for line in comparisons_table(only_ppo).splitlines() if line.startswith("| Search-R1 over RAG")]
    assert line.endswith("**missed** |")


def test_searches_are_counted_by_hops(out: Path) -> None:
    [row] = lines_of(page_of(read_results(out)), "By hops", "Search-R1, GRPO")
    assert row[2:6] == ["1.000", "0.545", "–", "–"]  # 2Wiki's five even ones and Bamboogle's one, of eleven
    assert row[6:] == ["1.00", "2.00", "–", "–", "1.52"]


def test_the_way_to_the_ceiling_is_a_share(out: Path) -> None:
    page = page_of(read_results(out))
    assert "Direct answers have 0.067, the same questions with gold passages 1.000" in page
    [rag] = lines_of(page, "The way to the ceiling", "RAG")
    # Its average is a sixth.
    assert rag[2:] == ["0.167", "11%"]


def test_the_page_says_how_each_row_was_made(out: Path) -> None:
    page = page_of(read_results(out))
    [grpo] = lines_of(page, "What it was made with", "grpo-bm25")
    assert grpo[1:6] == ["greedy", "–", "lamp", "0123456789abcdef", "RL by GRPO"]
    assert grpo[6:] == ["32", "0", "1.5 min in 2 sessions", "yes"]
    failed = {row[1]: row[7] for row in lines_of(page, "What it was made with", "rag-bm25")}
    assert failed == {"greedy": "1", "sampled-1": "0", "sampled-2": "0"}
    assert "32, 2 without a gold passage" in page
    assert "* `python -m loadtests.seven run OUT`: direct.greedy, rag-bm25.greedy" in page
    assert "Not measured yet: cot, ircot-bm25" in page


def test_a_sample_is_told_as_one(out: Path) -> None:
    questions = asked_questions(out)
    write_row(out, kept("cot", per_set=2, num_questions=4), questions[:4], {})
    page = page_of(read_results(out))
    assert "**Rows were asked a sample of the questions**" in page
    assert "Rows were asked 4 or 32" in page


def test_the_report_is_written_without_a_text_of_the_data(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    docs = tmp_path / "docs"
    monkeypatch.setattr(sys, "argv", ["seven", "report", str(out), "--docs", str(docs)])
    command.main()
    assert capsys.readouterr().out == f"{docs / 'seven.md'}\n"
    for picture in ("seven.png", "seven-hops.png"):
        assert (docs / picture).read_bytes().startswith(b"\x89PNG")
    written = (docs / "seven.md").read_text("utf-8") + (docs / "seven.json").read_text("utf-8")
    texts = [str(question["question"]) for question in QUESTIONS]
    assert [text for text in (*texts, "Keeper", "Lighthouse") if text in written] == []
    value = json.loads((docs / "seven.json").read_text("utf-8"))
    [grpo] = [row for row in value["rows"] if row["row"] == "grpo-bm25"]
    assert grpo["exact_match"]["2wikimultihopqa"]["mean"] == 0.5
    assert grpo["searches_by_hops"]["2 hops"] == {"mean": 2.0, "low": 2.0, "high": 2.0}


def test_a_report_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has no measured row"):
        write_report(tmp_path, tmp_path)
    monkeypatch.setattr(sys, "argv", ["seven", "report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"loadtests\.seven: .* has no measured row"):
        command.main()


def test_a_session_that_was_killed_ended_with_its_last_record(out: Path) -> None:
    first = begun(out, kept("cot"))
    assert not first.is_finished
    records_file(out, first.name).touch()
    again = begun(out, kept("cot"))
    (_, killed), (_, running) = again.sessions
    assert killed is not None
    assert running is None
    done = ended(out, again)
    assert done.is_finished
    assert done.wall_s >= 0
    assert next(one for one in read_kept(out) if one.name == "cot.greedy") == done


def test_a_row_that_is_under_way_has_no_score_yet(out: Path) -> None:
    questions = asked_questions(out)
    write_row(out, kept("cot", sessions=((1.0, 2.0), (3.0, None))), questions[:3], {})
    page = page_of(read_results(out))
    assert lines_of(page, "Exact match, greedy", "CoT") == []
    [made] = lines_of(page, "What it was made with", "cot")
    assert made[-1] == "**not to its end**: no score yet"
    assert "Rows were asked" not in page.split("## ")[0]
    (rows_folder(out) / "rag-bm25.greedy.jsonl").unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        read_results(out)


def test_intervals_draw_articles_and_not_questions(out: Path) -> None:
    results = read_results(out)
    rag = results.named("rag-bm25")
    assert rag is not None
    clusters = {score.cluster for score in results.scored(rag.greedy, scores.exact, scores.in_set("nq")).values()}
    assert len(clusters) == 5


def test_a_digest_is_that_of_what_an_engine_loads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = digest_of(tmp_path)
    (tmp_path / "README.md").write_text("said")
    assert digest_of(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert digest_of(tmp_path) != before


def test_words_of_the_command_line_are_pairs() -> None:
    assert command.pairs(["base=a", "grpo=b=c"]) == {"base": "a", "grpo": "b=c"}
    with pytest.raises(ValueError, match="not 'base'"):
        command.pairs(["base"])
