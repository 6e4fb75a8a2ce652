"""Demonstrations of what to do about a message that is no question for Atlas: say at once what one can answer."""

import random
from collections.abc import Iterator

from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.atlas.talk import prose
from searchr1.atlas.talk.conversations import Talk
from searchr1.atlas.talk.instructions import instructions, small_talk
from searchr1.atlas.talk.wordings import chatter, phrasings, programs
from searchr1.atlas.world import World, stable_hash
from searchr1.loop.conversation import Turn, fold_conversation

KIND = "off-topic"


def off_topic(world: World, split: str, rng: random.Random) -> Iterator[Demonstration]:
    """Yield demonstrations of one turn, without end."""
    talk = Talk(world, "train" if split == "train" else "test")
    while True:
        text, think, reply = _message(talk, rng)
        turns = [Turn("system", instructions(rng))] if rng.random() < 0.3 else []
        if rng.random() < 0.3:
            for _ in range(rng.choice((1, 1, 2, 3))):
                exchange = talk.exchange(rng) if rng.random() < 0.7 else small_talk(rng)
                turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer)]
        question = fold_conversation([*turns, Turn("user", text)])
        answer = DemonstratedTurn(f"<think> {think} </think>\n<answer> {reply} </answer>")
        ident = f"atlas-{split}-{KIND}-{stable_hash(question):016x}"
        yield Demonstration(ident, question, (reply,), 0, KIND, (answer,), {})


def _message(talk: Talk, rng: random.Random) -> tuple[str, str, str]:
    """Draw a message, and what to think and answer."""
    draw = rng.random()
    if draw < 0.13:
        return _varied(rng.choice(chatter.GREETINGS), rng), chatter.THINK_GREETING, chatter.REPLY_GREETING
    if draw < 0.21:
        return _varied(rng.choice(chatter.THANKS), rng), chatter.THINK_THANKS, chatter.REPLY_THANKS
    if draw < 0.33:
        return _varied(rng.choice(chatter.ABOUT_YOU), rng), chatter.THINK_ABOUT, chatter.REPLY_ABOUT
    return _other(talk, rng), chatter.THINK_OTHER, chatter.REPLY_OTHER


def _other(talk: Talk, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.3:
        return _varied(rng.choice(chatter.OTHER), rng)
    if draw < 0.44:
        return _varied(rng.choice(chatter.ABOUT_PLACES).format(place=talk.place(rng)), rng)
    if draw < 0.64:
        return _varied(f"{rng.choice(chatter.OPENERS)} {prose.phrase(rng, rng.randint(1, 8))}{rng.choice('.??')}", rng)
    if draw < 0.72:
        return " ".join(prose.sentences(rng, rng.choice((1, 1, 2, 4))))
    if draw < 0.76:
        return rng.choice(("", "Explain this: ", "What does this do? ", "Fix this:\n")) + rng.choice(programs.CODE)
    if draw < 0.82:
        first, second = rng.randint(0, 200), rng.randint(0, 200)
        sum_ = f"{first}{rng.choice((' + ', '+', ' * ', ' - ', ' / ', ' times ', ' plus '))}{second}"
        return _varied(
            rng.choice(("What is {sum}?", "{sum}", "{sum}=", "How much is {sum}?", "Calculate {sum}")).format(sum=sum_),
            rng,
        )
    return _chat_task(talk, rng)


def _chat_task(talk: Talk, rng: random.Random) -> str:
    """Word what a chat program asks for beside the conversation."""
    names = rng.choice((("USER", "ASSISTANT"), ("User", "Assistant"), ("user", "assistant"), ("Human", "AI")))
    lines = []
    for _ in range(rng.choice((1, 1, 2))):
        exchange = talk.exchange(rng) if rng.random() < 0.8 else small_talk(rng)
        lines += [f"{names[0]}: {exchange.question.strip()}", f"{names[1]}: {exchange.answer}"]
    task = rng.choice(programs.UI_TASKS)
    history = rng.choice(programs.UI_HISTORY).format(history="\n".join(lines))
    return f"{task}{history}" if rng.random() < 0.85 else f"{history}\n\n{task.strip()}"


def _varied(text: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.12:
        return text.lower()
    if draw < 0.2:
        return text.rstrip("?!.") or text
    if draw < 0.26:
        return rng.choice(phrasings.WRAPPERS).format(question=text)
    return text
