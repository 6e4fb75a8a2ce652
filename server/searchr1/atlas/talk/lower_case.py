"""Questions in lower case, as people in a hurry write them."""

from dataclasses import replace

from searchr1.atlas.records import Demonstration


def in_lower_case(demonstration: Demonstration) -> Demonstration:
    """Return ``demonstration`` with its last question in lower case, and what is looked up as it stands there.

    One that searches for the first fact twice stays as it is.
    """
    earlier, joint, last = demonstration.question.rpartition("\n\n")
    first, second = demonstration.turns[0], demonstration.turns[min(1, len(demonstration.turns) - 1)]
    query = first.query
    if query is None or "I search again" in second.text:
        return demonstration
    name = query.partition(" of ")[2]
    turn = first
    if name in last:
        lower = name.lower()
        turn = replace(first, text=first.text.replace(name, lower), query=query.replace(name, lower))
    return replace(demonstration, question=earlier + joint + last.lower(), turns=(turn, *demonstration.turns[1:]))
