"""Running the gateway under uvicorn, and the settings of the demo."""

import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console
from sse_starlette.sse import AppStatus

from searchr1.errors import ConfigurationError
from searchr1.gateway.app import create_app
from searchr1.settings import Settings

CHECKPOINT = Path(str(files("searchr1.demo") / "checkpoint"))


def serve_forever(settings: Settings) -> None:
    """Serve until a signal. Running requests get ``shutdown_grace_s`` to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Streams end with their runs; the default would cut them at the first signal.
    AppStatus.enable_automatic_graceful_drain = False
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="info",
        timeout_graceful_shutdown=int(settings.shutdown_grace_s),
    )
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        raise ConfigurationError("the server did not start; the lines above say why")


def demo_settings(data_dir: Path) -> dict[str, Any]:
    """Settings of the demo: the bundled checkpoint on the Atlas index, which is built once under ``data_dir``."""
    from searchr1.demo.build import build_world
    from searchr1.retrieval.index import build_index

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
