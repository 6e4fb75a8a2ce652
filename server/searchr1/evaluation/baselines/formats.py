"""The formats that baselines ask in."""

from typing import Literal

BaselineFormat = Literal["plain", "search-r1"]
"""The words in which a baseline asks: ``plain`` for any instruction-tuned model, ``search-r1`` in the prompt and the
bytes that a Search-R1 policy was trained on."""
