"""The load of one vLLM, read from its ``/metrics``: how many KV tokens it holds, how many are in use, and its queue."""

import re
from dataclasses import dataclass
from typing import Final

_SAMPLE: Final = re.compile(
    r"^vllm:(cache_config_info|kv_cache_usage_perc|num_requests_running|num_requests_waiting)\{([^}\n]*)\} (\S+)$",
    re.MULTILINE,
)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one server; its engines, where it runs several, are summed. None is what it does not tell."""

    capacity_tokens: int | None = None
    """Tokens that its KV cache holds. Of its blocks vLLM keeps one for itself."""
    used_tokens: int | None = None
    """Tokens of running completions in it; cached prefixes that nobody uses are free."""
    num_running: int = 0
    num_waiting: int = 0
    block_tokens: int = 1
    """Tokens of a block, of which each request holds whole ones; 1 where it is not told."""


def load_of(metrics: str) -> Load:
    """Return the load that vLLM's metrics tell, in Prometheus' text format; what can't be read is not told."""
    capacity: dict[str, int] = {}
    block_tokens = 1
    used_share: dict[str, float] = {}
    counts = {"num_requests_running": 0.0, "num_requests_waiting": 0.0}
    for name, written, value in _SAMPLE.findall(metrics):
        labels = dict(_LABEL.findall(written))
        engine = labels.get("engine", "")
        try:
            if name == "cache_config_info":
                num_blocks, size = int(labels["num_gpu_blocks"]), int(labels["block_size"])
                if num_blocks > 1 and size > 0:
                    capacity[engine], block_tokens = (num_blocks - 1) * size, max(size, block_tokens)
            elif name == "kv_cache_usage_perc":
                used_share[engine] = min(max(float(value), 0.0), 1.0)
            else:
                counts[name] += float(value)
        except (KeyError, ValueError):
            continue
    used = None
    if capacity and capacity.keys() <= used_share.keys():
        used = round(sum(tokens * used_share[engine] for engine, tokens in capacity.items()))
    return Load(
        sum(capacity.values()) if capacity else None,
        used,
        int(counts["num_requests_running"]),
        int(counts["num_requests_waiting"]),
        block_tokens,
    )
