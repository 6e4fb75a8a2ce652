"""Signs of work in vLLM's metrics: the numbers that only a step of the engine changes."""

import re
from typing import Final

# The front end alone counts requests that come and go; these it copies from what the engine core reports of a step.
_WORK: Final = re.compile(
    r"^vllm:(?:num_requests_running|num_requests_waiting|kv_cache_usage_perc|generation_tokens_total|prompt_tokens_total"
    r"|iteration_tokens_total_count|num_preemptions_total)(?:\{[^}\n]*\})? \S+$",
    re.MULTILINE,
)


def progress_of(metrics: str) -> tuple[str, ...] | None:
    """Return the samples that change while the engine works; None where the text has none of them."""
    return tuple(_WORK.findall(metrics)) or None
