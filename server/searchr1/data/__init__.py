"""Questions with golden answers: where they lie, how they are read, and ``searchr1 data prepare``.

See docs/guides/data.md.
"""
