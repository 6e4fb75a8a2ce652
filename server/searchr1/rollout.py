"""The one way from a question to a rollout: the profile's prompt, the chat template, token ids, the state machine.

Serving, training, evaluation and the export to verl all start here, so that what is served is what was trained.
"""

from searchr1.loop.machine import Rollout
from searchr1.loop.prompts import FAITHFUL, Profile
from searchr1.loop.types import Limits
from searchr1.tokenizer import Tokenizer


def start_rollout(
    question: str,
    tokenizer: Tokenizer,
    *,
    profile: Profile = FAITHFUL,
    limits: Limits | None = None,
    keep_sampled: bool = False,
) -> Rollout:
    """Return an open rollout of ``question``, asked as ``profile`` words it.

    With ``keep_sampled`` the ids that the policy sampled stand in the trajectory, which training needs: their logprobs
    hold for no other ids. Serving leaves it off, and each turn's text is tokenized again, as the reference does it.

    Raises:
        ReservedTextError: the question contains the text of a special token.
    """
    message = profile.prompt(question)
    return start_rollout_of_message(message, tokenizer, profile=profile, limits=limits, keep_sampled=keep_sampled)


def start_rollout_of_message(
    message: str,
    tokenizer: Tokenizer,
    *,
    profile: Profile = FAITHFUL,
    limits: Limits | None = None,
    keep_sampled: bool = False,
) -> Rollout:
    """Return an open rollout of a user message that ``profile`` has already worded; see ``start_rollout``."""
    prompt = tokenizer.render(message)
    return Rollout(
        prompt=prompt,
        prompt_ids=tokenizer.encode_prompt(prompt),
        encode=tokenizer.encode,
        limits=limits,
        profile=profile,
        decode=tokenizer.decode if keep_sampled else None,
    )
