"""The recipes of ``deploy/proxies``, run by the proxies: with other addresses, and a certificate of their own."""

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
import yaml

from loadtests.processes import ROOT, free_port, program_path

RECIPES = ROOT / "deploy" / "proxies"
NAME = "answers.example"
"""The name that the recipes serve."""
_WAIT_S = 20.0
_WITHOUT_RATES = {"rate=5r/s": "rate=100000r/s", "held 20": "held 10000"}
"""What nginx's recipe says of rates per address, and what it says where one address is all clients."""


@dataclass(frozen=True)
class Front:
    """A proxy that runs: where it listens, and what its certificate is checked by."""

    port: int
    tls: ssl.SSLContext
    send_to: Callable[[Sequence[int]], None]
    """Has it send requests to the servers at these ports alone. nginx does so after a reload. Envoy and Caddy ask
    ``/readyz`` themselves and are told nothing."""


@contextmanager
def front(program: str, folder: Path, to_ports: Sequence[int], *, has_rates: bool = True) -> Iterator[Front]:
    """Run nginx, Caddy or Envoy before the servers at ``to_ports`` until the block ends, entering once it listens.

    ``has_rates`` says whether it bounds the rates of an address, where the recipe does. The log is in ``folder``.
    """
    path = program_path(program)
    assert path is not None, f"needs {program}"
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME, "localhost")
    certificate.private_key_pem.write_to_path(folder / "answers.key")
    (folder / "answers.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    port = free_port()
    rates = {} if has_rates else _WITHOUT_RATES
    command = [path, *_ARGUMENTS[program](folder, port, to_ports, rates)]
    environment = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = folder / "proxy.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out) as process,
    ):

        def send_to(ports: Sequence[int]) -> None:
            if program == "nginx":
                _nginx(folder, port, ports, rates)
                process.send_signal(signal.SIGHUP)

        try:
            _wait_until_open(process, port, log)
            yield Front(port, tls, send_to)
        finally:
            process.terminate()
            process.wait(timeout=_WAIT_S)


def _wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_at = time.monotonic() + _WAIT_S
    while time.monotonic() < give_up_at and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the proxy does not listen:\n{log.read_text(errors='replace')[-4000:]}")


def _changed(recipe: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        if old not in recipe:
            raise ValueError(f"the recipe does not say {old!r}")
        recipe = recipe.replace(old, new)
    return recipe


def _nginx(folder: Path, port: int, to_ports: Sequence[int], rates: Mapping[str, str]) -> list[str]:
    servers = "\n".join(f"    server 127.0.0.1:{one};" for one in to_ports)
    changes = {
        "    server 127.0.0.1:8000;": servers,
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/": f"{folder}/",
        **rates,
    }
    (folder / "recipe.conf").write_text(_changed((RECIPES / "nginx.conf").read_text("utf-8"), changes), "utf-8")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    http = f"http {{ access_log off; {paths} include {folder}/recipe.conf; }}"
    main = f"daemon off; pid {folder}/pid; error_log stderr; events {{ worker_connections 4096; }} {http}"
    (folder / "main.conf").write_text(main, "utf-8")
    return ["-p", str(folder), "-c", str(folder / "main.conf")]


def _caddy(folder: Path, port: int, to_ports: Sequence[int], rates: Mapping[str, str]) -> list[str]:
    changes = {
        "127.0.0.1:8000": " ".join(f"127.0.0.1:{one}" for one in to_ports),
        f"{NAME} {{": f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/answers.pem {folder}/answers.key",
    }
    recipe = _changed((RECIPES / "Caddyfile").read_text("utf-8"), changes)
    options = "{\n\tadmin off\n\tauto_https off\n}\n"
    (folder / "Caddyfile").write_text(options + recipe, "utf-8")
    return ["run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def envoy_config(folder: Path, port: int, to_ports: Sequence[int]) -> dict[str, Any]:
    """Return Envoy's recipe with these addresses, and the certificate that is in ``folder``."""
    text = _changed((RECIPES / "envoy.yaml").read_text("utf-8"), {"/etc/ssl/": f"{folder}/"})
    config: dict[str, Any] = yaml.safe_load(text)
    [listener], [cluster] = (config["static_resources"][kind] for kind in ("listeners", "clusters"))
    listener["address"]["socket_address"] = _socket(port)["socket_address"]
    [group] = cluster["load_assignment"]["endpoints"]
    group["lb_endpoints"] = [{"endpoint": {"address": _socket(one)}} for one in to_ports]
    return config


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy(folder: Path, port: int, to_ports: Sequence[int], rates: Mapping[str, str]) -> list[str]:
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(envoy_config(folder, port, to_ports)), "utf-8")
    return ["--config-path", str(path), "--use-dynamic-base-id", "--concurrency", "2"]


_ARGUMENTS: dict[str, Callable[[Path, int, Sequence[int], Mapping[str, str]], list[str]]] = {
    "nginx": _nginx,
    "caddy": _caddy,
    "envoy": _envoy,
}
PROGRAMS = tuple(_ARGUMENTS)
