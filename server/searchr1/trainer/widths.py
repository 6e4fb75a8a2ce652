"""Widths of padded batches: few of them, so that models see few shapes."""

WIDTH_STEP = 64
"""Rows are one token longer than a multiple of this, so that what the model reads, all tokens but the last, comes in
few shapes: kernels are compiled, or on a CPU prepared, once per shape."""


def padded_width(num_tokens: int) -> int:
    """Return the tokens of a padded row that holds ``num_tokens``, at least 2."""
    return -(-(num_tokens - 1) // WIDTH_STEP) * WIDTH_STEP + 1
