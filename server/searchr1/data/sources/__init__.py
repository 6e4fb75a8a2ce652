"""Sources of questions: from what a user names to the files that hold it.

A source is ``atlas``, one of the paper's seven sets (``nq``, …, or ``seven`` for all), a file, a folder, or a hub
dataset. Each named source is one file of this package; ``paths`` finds everything else.
"""

from searchr1.data.sources.base import DATA_DIR, Places, SourceFile
from searchr1.data.sources.registry import locate

__all__ = ["DATA_DIR", "Places", "SourceFile", "locate"]
