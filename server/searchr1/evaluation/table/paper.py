"""The exact match that the Search-R1 paper reports (arXiv 2503.09516, main and ablation tables), as transcribed.

The numbers were read through a transcription and not checked against the paper's own file. Values are exact match
times 1,000, in the order of ``searchr1.data.sets.SETS``, then the average that is printed with them: in one row
(IRCoT, 7B) it is not the mean of the row.
"""

from dataclasses import dataclass
from typing import Literal

from searchr1.data.sets import SETS

PaperModel = Literal["qwen2.5-3b", "qwen2.5-7b"]

NOTE = "paper, as transcribed"


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One row of the paper's table. Scores are shares."""

    name: str
    method: str | None
    """The method of ours, where we have it."""
    exact_match: dict[str, float]
    """Scores by data source."""
    average: float


_ROWS: dict[PaperModel, tuple[tuple[str, str | None, str], ...]] = {
    "qwen2.5-7b": (
        ("Direct", "direct", "134/408/140/183/250/031/120|181"),
        ("CoT", "cot", "048/185/054/092/111/022/232|106"),
        ("IRCoT", "ircot", "224/478/301/133/149/072/224|239"),
        ("Search-o1", None, "151/443/131/187/176/058/296|206"),
        ("RAG", "rag", "349/585/392/299/235/058/208|304"),
        ("SFT", None, "318/354/121/217/259/066/112|207"),
        ("R1-base", None, "297/539/202/242/273/083/296|276"),
        ("Rejection sampling", None, "360/592/380/331/296/123/355|348"),
        ("Search-R1 base, PPO", "search-r1", "480/638/457/433/382/196/432|431"),
        ("Search-R1 instruct, PPO", "search-r1", "393/610/397/370/414/146/368|385"),
        ("Search-R1 base, GRPO", "search-r1", "395/560/388/326/297/125/360|350"),
        ("Search-R1 base, PPO, no mask", "search-r1", "388/567/391/325/321/108/304|343"),
    ),
    "qwen2.5-3b": (
        ("Direct", "direct", "106/288/108/149/244/020/024|134"),
        ("CoT", "cot", "023/032/005/021/021/002/000|015"),
        ("IRCoT", "ircot", "111/312/200/164/171/067/240|181"),
        ("Search-o1", None, "238/472/262/221/218/054/320|255"),
        ("RAG", "rag", "348/544/387/255/226/047/080|270"),
        ("SFT", None, "249/292/104/186/248/044/112|176"),
        ("R1-base", None, "226/455/173/201/268/055/224|229"),
        ("Rejection sampling", None, "294/488/332/240/233/059/210|265"),
        ("Search-R1 base, PPO", "search-r1", "406/587/435/284/273/049/088|303"),
        ("Search-R1 instruct, PPO", "search-r1", "341/545/378/324/319/103/264|325"),
        ("Search-R1 base, GRPO", "search-r1", "421/583/413/297/274/066/128|312"),
        ("Search-R1 base, PPO, no mask", "search-r1", "346/484/365/241/244/053/104|262"),
    ),
}


def paper_rows(model: PaperModel) -> list[PaperRow]:
    """Return the rows of the paper's table for one model, in its order."""
    return [PaperRow(name, method, *_scores(cells)) for name, method, cells in _ROWS[model]]


def _scores(cells: str) -> tuple[dict[str, float], float]:
    scores, average = cells.split("|")
    shares = [int(score) / 1000 for score in scores.split("/")]
    return dict(zip(SETS, shares, strict=True)), int(average) / 1000
