"""Fields of Chat Completions that this server refuses: overlooking them would change what the client gets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from searchr1.gateway.errors import invalid


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal of a field: its reason, and the values that change nothing and are taken all the same."""

    why: str
    is_harmless: Callable[[Any], bool] = lambda value: not value


def _is_text_format(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and value.get("type") == "text")


def _is_text_alone(value: Any) -> bool:
    return value in (None, [], ["text"])


def _is_none(value: Any) -> bool:
    return value is None


REFUSALS: Mapping[str, Refusal] = {
    "response_format": Refusal(
        "Answers are plain text: checkpoints are not trained on another format. Leave it out.", _is_text_format
    ),
    "logprobs": Refusal("Chat completions carry no logprobs. POST /v1/research records them in the trajectory."),
    "top_logprobs": Refusal("Chat completions carry no logprobs. POST /v1/research records them in the trajectory."),
    "logit_bias": Refusal("Logits can't be biased. Leave it out."),
    "modalities": Refusal("Answers are text alone. Leave it out.", _is_text_alone),
    "audio": Refusal("Answers are text alone. Leave it out.", _is_none),
    "moderation": Refusal("Nothing is moderated here. Leave it out.", _is_none),
}


def refuse_unsupported(fields: Mapping[str, Any]) -> None:
    """Refuse a request for what it asks for and can't get.

    Raises:
        ApiError: 400 ``unsupported_parameter``; ``param`` names the field.
    """
    for name, refusal in REFUSALS.items():
        if not refusal.is_harmless(fields.get(name)):
            raise invalid(f"'{name}': {refusal.why}", param=name, code="unsupported_parameter")
