"""The one way from a question to a rollout: the profile's prompt, the chat template, token ids, the state machine.

Serving, training, evaluation and the export to verl all start here, so that what is served is what was trained.
"""

from searchr1.errors import ConfigurationError
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits
from searchr1.tokenizer import ReservedTextError, Tokenizer


def start_rollout(
    question: str,
    tokenizer: Tokenizer,
    *,
    profile: Profile = SEARCH_R1,
    limits: Limits | None = None,
    keep_sampled: bool = False,
) -> Rollout:
    """Return an open rollout of ``question``, asked as ``profile`` words it.

    With ``keep_sampled`` the trajectory keeps the ids that the policy sampled, which training needs: their logprobs
    hold for no other ids. Serving leaves it off, and each turn's text is tokenized again, as the reference does it.

    Raises:
        ReservedTextError: the question contains the text of a special token.
        ConfigurationError: the checkpoint has no chat template for the profile's system message, or refuses it.
    """
    message = profile.prompt(question)
    return start_rollout_of_message(message, tokenizer, profile=profile, limits=limits, keep_sampled=keep_sampled)


def start_rollout_of_message(
    message: str,
    tokenizer: Tokenizer,
    *,
    profile: Profile = SEARCH_R1,
    limits: Limits | None = None,
    keep_sampled: bool = False,
) -> Rollout:
    """Return an open rollout of a user message that ``profile`` has already worded; see ``start_rollout``."""
    prompt = render_prompt(message, tokenizer, profile)
    return Rollout(
        prompt=prompt,
        prompt_ids=tokenizer.encode_prompt(prompt),
        encode=tokenizer.encode,
        limits=limits,
        profile=profile,
        decode=tokenizer.decode if keep_sampled else None,
        spell=tokenizer.decode,
    )


def render_prompt(message: str, tokenizer: Tokenizer, profile: Profile) -> str:
    """Return the text that the policy goes on from: ``message`` with what ``profile`` and chat template put around it.

    It raises what ``start_rollout`` raises.
    """
    return tokenizer.render(message, system=profile.system, chat=profile.chat)


def check_profile(profile: Profile, tokenizer: Tokenizer) -> None:
    """Raise ``ConfigurationError`` if no question could be asked as ``profile`` words it, with this tokenizer."""
    misfit = f"the profile {profile.name!r} does not fit the model's tokenizer"
    try:
        rendered = render_prompt(profile.prompt("?"), tokenizer, profile)
    except (ReservedTextError, ConfigurationError) as error:
        raise ConfigurationError(f"{misfit}: {error}") from error
    if profile.system is not None and not all(m["content"].strip() in rendered for m in profile.messages("?")):
        raise ConfigurationError(f"{misfit}: its chat template leaves the system message or the user's out")
