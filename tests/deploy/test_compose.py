"""Compose and systemd: what they set is a setting, and what they name is there."""

import re
import shutil
import subprocess

import pytest

from loadtests.processes import program_path
from searchr1.environment import OTHER_VARIABLES
from searchr1.settings import Settings
from tests.deploy.manifests import ROOT, Object, load

FILE = ROOT / "deploy" / "compose.yaml"
UNIT = ROOT / "deploy" / "systemd" / "searchr1.service"
KNOWN = Settings.variables() | OTHER_VARIABLES


@pytest.fixture(scope="module")
def services() -> Object:
    """The services of the file, as it is written."""
    found: Object = load(FILE)["services"]
    return found


@pytest.mark.parametrize("profile", ["demo", "gpu", "observability"])
def test_docker_takes_the_file(profile: str) -> None:
    program = program_path("docker-compose")
    if program is None:
        pytest.skip("needs docker-compose")
    command = [program, "-f", str(FILE), "--profile", profile, "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_service_has_a_profile(services: Object) -> None:
    assert {tuple(one["profiles"]) for one in services.values()} == {("demo",), ("gpu",), ("observability",)}


def test_every_variable_of_ours_is_a_setting(services: Object) -> None:
    names = {name for one in services.values() for name in one.get("environment", {}) if name.startswith("SEARCHR1_")}
    assert names
    assert names <= KNOWN


def test_what_is_built_is_in_the_dockerfile(services: Object) -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    assert {one["build"]["target"] for one in services.values() if "build" in one} <= stages


def test_what_is_mounted_is_there(services: Object) -> None:
    mounts = [mount.split(":")[0] for one in services.values() for mount in one.get("volumes", ())]
    files = [name for name in mounts if name.startswith("./") and name != "./secrets"]
    assert files
    assert [name for name in files if not (FILE.parent / name).exists()] == []
    assert {name for name in mounts if not name.startswith("./")} <= load(FILE)["volumes"].keys()


def test_ports_are_published_on_this_machine_alone(services: Object) -> None:
    published = [port for one in services.values() for port in one.get("ports", ())]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_a_container_may_take_as_long_to_stop_as_its_runs(services: Object) -> None:
    for name in ("demo", "gateway"):
        variables = services[name]["environment"]
        default = Settings.model_fields["shutdown_grace_s"].default
        grace_s = float(variables.get("SEARCHR1_SHUTDOWN_GRACE_S", default))
        drain_s = float(variables.get("SEARCHR1_DRAIN_S", Settings.model_fields["drain_s"].default))
        assert float(services[name]["stop_grace_period"].removesuffix("s")) >= grace_s + drain_s + 3, name


def test_the_engine_of_compose_is_started_as_the_gateway_needs_it(services: Object) -> None:
    settings = Settings(model="m", retriever="index:none")
    arguments = services["vllm"]["command"]
    longest = settings.max_context_tokens + settings.max_completion_tokens
    assert {f"--max-model-len={longest}", "--enable-prompt-tokens-details"} <= set(arguments)
    assert f"--served-model-name={services['gateway']['environment']['SEARCHR1_MODEL']}" in arguments


def test_the_unit_sets_and_loads_what_is_a_setting() -> None:
    text = UNIT.read_text("utf-8")
    loaded = re.findall(r"^#?LoadCredential=(\w+):", text, re.MULTILINE)
    names = {one.upper() for one in loaded} | set(re.findall(r"\b(SEARCHR1_[A-Z0-9_]+)", text))
    assert "SEARCHR1_API_KEYS" in names
    assert names <= KNOWN


def test_the_unit_waits_for_runs_to_end() -> None:
    [stop_s] = re.findall(r"^TimeoutStopSec=(\d+)", UNIT.read_text("utf-8"), re.MULTILINE)
    fields = Settings.model_fields
    assert float(stop_s) >= fields["drain_s"].default + fields["shutdown_grace_s"].default + 3


def test_systemd_takes_the_unit() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    command = ["systemd-analyze", "verify", "--man=no", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert [line for line in complaints if "searchr1.service" in line] == []
