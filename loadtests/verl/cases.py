"""Trajectories that the scripted server of completions plays inside verl, and the reward that each has to get.

The rewards are those of ``format_v0_3``, which tells apart what exact match does not: 1 and 0.8 for a right answer,
well formed or not, 0.2 and 0.1 for a wrong one or none. Standard library alone: both sides of the check import this.
"""

from dataclasses import dataclass

REWARD = "format_v0_3"
BOUNDS = {
    "rollout.max_turns": 4,
    "rollout.max_observation_tokens": 120,
    "rollout.max_trajectory_tokens": 1200,
    "rollout.top_k": 3,
}
"""Bounds of the run that is checked, by their names in a training file: small, so that some case reaches each."""

PASSAGES = (
    ("Mali", "Mali is a landlocked country in West Africa. Its capital and largest city is Bamako, on the Niger."),
    ("Bamako", "Bamako is the capital of Mali. It lies on the Niger River, in the south-west of the country."),
    ("Niger River", "The Niger River flows through Guinea, Mali, Niger, Benin and Nigeria into the Gulf of Guinea."),
    ("Timbuktu", "Timbuktu is a city in Mali, twenty kilometres north of the Niger River, known for its manuscripts."),
    ("Fiji", "Fiji is an island country in the South Pacific. Its capital is Suva, on the island of Viti Levu."),
    ("Kiribati", "Kiribati is a country of atolls in the Pacific. Its capital is Tarawa, an atoll itself."),
)
"""Titles and texts of the corpus."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question, and what the policy writes, turn by turn."""

    name: str
    question: str
    golden_answers: tuple[str, ...]
    turns: tuple[str, ...]
    reward: float


def search(query: str, thought: str = "I need to look it up.") -> str:
    """Return a turn that searches."""
    return f"<think> {thought} </think>\n<search> {query} </search>"


def answer(text: str) -> str:
    """Return a turn that answers."""
    return f"<think> Now I know. </think>\n<answer> {text} </answer>"


BAMAKO = ("Bamako", "Bamako, Mali")
CASES = (
    Case("a search", "What is the capital of Mali?", BAMAKO, (search("capital of Mali"), answer("Bamako")), 1.0),
    Case("no search", "Which city is the capital of Mali?", BAMAKO, (answer("bamako!"),), 1.0),
    Case("a wrong answer", "Which is the capital of Mali?", BAMAKO, (search("Mali"), answer("Timbuktu")), 0.2),
    Case("no action at first", "Where is Mali governed from?", BAMAKO, ("Well, well.", answer("Bamako")), 0.8),
    Case(
        "two searches",
        "What is the capital of the country where Timbuktu is?",
        BAMAKO,
        (search("Timbuktu"), search("capital of Mali"), answer("Bamako")),
        1.0,
    ),
    Case(
        "text after the tags",
        "What is the capital of Fiji?",
        ("Suva",),
        (search("capital of Fiji") + "\n\n and on", answer("Suva") + " and <search> on"),
        1.0,
    ),
    Case("an empty query", "Which town is the capital of Fiji?", ("Suva",), (search(" "), answer("Suva")), 1.0),
    Case("no answer", "Is there an answer?", ("No",), ("<think> Hm. </think>",) * 5, 0.1),
    Case("searches alone", "Is there a better query?", ("No",), (search("Kiribati"),) * 5, 0.1),
    Case(
        "an answer past the end",
        "What is the capital of Kiribati?",
        ("Tarawa",),
        (*(search("capital of Kiribati", "I think and think. " * 90),) * 3, answer("Tarawa")),
        0.1,
    ),
)


def case_asked_in(prompt: str) -> Case:
    """Return the case whose question a prompt ends with."""
    [case] = [case for case in CASES if f"Question: {case.question}\n" in prompt]
    return case
