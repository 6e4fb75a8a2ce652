"""A page of another origin than the gateway's, with OpenAI's JavaScript SDK in it."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .clients import FOLDER

PACKAGES = FOLDER / "node" / "node_modules"
PAGE = b"""<!doctype html>
<script type="importmap">
  {"imports": {
    "openai": "/openai/index.mjs",
    "#x509-transport-state": "/openai/internal/auth/x509-transport-state.mjs"
  }}
</script>
<script type="module">
  import * as sdk from 'openai';
  window.sdk = sdk;
</script>
"""


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves the page, and the packages beside it."""

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def other_origin() -> Iterator[str]:
    """Serve the page until the block ends; yields its origin."""
    handler = functools.partial(Pages, directory=str(PACKAGES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
