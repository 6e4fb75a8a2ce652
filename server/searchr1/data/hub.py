"""Datasets of the Hugging Face hub, read from its cache where it holds them."""

import re
from collections.abc import Sequence
from pathlib import Path

from searchr1 import hf_hub
from searchr1.errors import DatasetError, missing_package

_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Return whether ``text`` can be ``owner/name`` or ``owner/name@revision``."""
    return _NAME.fullmatch(text) is not None and not text.startswith(".")


def snapshot(name: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a dataset's files that match ``patterns``; those that the cache lacks are downloaded.

    Raises:
        DatasetError: the cache lacks the dataset, and the hub does not give it out or can't be reached.
    """
    repo, _, revision = name.partition("@")
    try:
        return hf_hub.snapshot(
            repo, repo_type="dataset", revision=revision or None, allow_patterns=list(patterns), library_name="searchr1"
        )
    except ImportError as error:
        raise DatasetError(
            missing_package(f"{name} is not here, and looking it up", "huggingface_hub", "server")
        ) from error
    except hf_hub.HubRefusedError as error:
        raise DatasetError(
            f"{name} is no file or folder here, and the hub's cache does not hold it; "
            f"the hub gives: {error}. Offline, give the path of its files"
        ) from error


def cached_snapshot(folder: Path) -> Path:
    """Return the snapshot in a folder that is laid out as the hub's cache, with ``snapshots/``; else the folder."""
    snapshots = folder / "snapshots"
    if not snapshots.is_dir():
        return folder
    main = folder / "refs" / "main"
    if main.is_file() and (named := snapshots / main.read_text("utf-8").strip()).is_dir():
        return named
    return max(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, default=folder)
