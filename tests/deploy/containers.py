"""Images of the Dockerfile, built by ``scripts/build-image`` and run by runc as a cluster's restricted pods are."""

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.manifests import ROOT, Object

NEEDED = ("buildah", "debootstrap", "runc")
USER = 10001
_STORE = ("--root", str(ROOT / ".image" / "storage"), "--runroot", str(ROOT / ".image" / "run"))
_PSEUDO_FILES = (
    ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/tmp", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=1777", "size=268435456"]),
)


def missing() -> str | None:
    """Return what is missing to build and run images, None where nothing is."""
    if os.getuid() != 0:
        return "needs root"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"needs {', '.join(absent)}: scripts/setup-image" if absent else None


@dataclass(frozen=True)
class Image:
    """An image: its name, and its configuration as Docker writes it."""

    name: str
    config: Object

    def run(self, command: Sequence[str], **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run ``command`` in a container of the image, to its end."""
        with _bundle(self, command, variables) as bundle:
            return subprocess.run(
                ["runc", "run", "--bundle", str(bundle), f"test-{uuid.uuid4().hex[:12]}"],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )


def build(target: str) -> Image:
    """Build a target of the Dockerfile; what is built already stays."""
    subprocess.run([str(ROOT / "scripts" / "build-image"), target], check=True)
    name = f"localhost/searchr1-{target}"
    return Image(name, json.loads(_buildah("inspect", "--type", "image", name))["Docker"]["config"])


def _buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *_STORE, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@dataclass
class Container:
    """A container that runs the image's own command, with the network of this machine."""

    process: "subprocess.Popen[bytes]"
    name: str

    def send(self, number: signal.Signals) -> None:
        """Send its first process a signal, as an orchestrator does."""
        subprocess.run(["runc", "kill", self.name, number.name], check=True, capture_output=True)

    def execute(self, command: Sequence[str]) -> int:
        """Run a command in it, as a health check does. Returns the exit code."""
        return subprocess.run(["runc", "exec", self.name, *command], check=False, timeout=60).returncode


@contextmanager
def running(image: Image, variables: Mapping[str, str], log: Path) -> Iterator[Container]:
    """Run the image's own command until the block ends."""
    command = [*image.config["Entrypoint"], *image.config["Cmd"]]
    name = f"test-{uuid.uuid4().hex[:12]}"
    with _bundle(image, command, variables) as bundle, log.open("wb") as out:
        process = subprocess.Popen(["runc", "run", "--bundle", str(bundle), name], stdout=out, stderr=out)
        try:
            yield Container(process, name)
        finally:
            subprocess.run(["runc", "delete", "--force", name], check=False, capture_output=True)
            process.wait(timeout=30)


@contextmanager
def _bundle(image: Image, command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Path]:
    """Lay out what runc runs: the files of the image, read-only, for a user without capabilities."""
    container = _buildah("from", "--pull-never", image.name)
    try:
        root = _buildah("mount", container)
        bundle = ROOT / ".image" / container
        bundle.mkdir()
        try:
            specification = _specification(image, root, command, variables)
            (bundle / "config.json").write_text(json.dumps(specification), "utf-8")
            yield bundle
        finally:
            shutil.rmtree(bundle)
    finally:
        _buildah("rm", container)


def _specification(image: Image, root: str, command: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    none: dict[str, list[str]] = {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    user, _, group = image.config["User"].partition(":")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": True},
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": list(command),
            "cwd": image.config["WorkingDir"],
            "env": [*image.config["Env"], *(f"{name}={value}" for name, value in variables.items())],
            "capabilities": none,
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": place, "type": kind, "source": source, "options": options}
            for place, kind, source, options in _PSEUDO_FILES
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/sysrq-trigger"],
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq"],
        },
    }
