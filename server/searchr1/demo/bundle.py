"""The bundled demo: its checkpoint, and the settings with which ``searchr1 serve --demo`` opens it."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console

CHECKPOINT = Path(str(files("searchr1.demo") / "checkpoint"))
"""The bundled checkpoint's folder, as Hugging Face lays one out."""


def demo_settings(data_dir: Path) -> dict[str, Any]:
    """Settings of the demo: the bundled checkpoint on the Atlas index, which is built once under ``data_dir``."""
    # The world's generator needs packages that serving another model does not.
    from searchr1.atlas.build import build_world
    from searchr1.retrieval.index.bm25 import build_index

    atlas = data_dir / "atlas"
    index = atlas / "index"
    console = Console(stderr=True)
    if not (index / "manifest.json").is_file():
        console.print(f"Writing the Atlas world to {atlas} (once)")
        build_world(atlas)
        build_index(atlas / "corpus.jsonl", index)
    return {
        "model": str(CHECKPOINT),
        "served_name": "searchr1-atlas",
        "retriever": f"index:{index}",
        "kv_cache_gib": 1.0,
        "engine_priority": True,
    }
