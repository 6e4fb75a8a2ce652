"""What ``scripts/check-verl`` runs with verl's own Python: verl's classes over exports.

``__main__.py`` beside it starts this. It needs no GPU and starts no Ray.
"""

import argparse
import asyncio
import importlib.metadata
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import verl  # type: ignore[import-not-found]
from omegaconf import OmegaConf  # type: ignore[import-not-found]
from packaging.requirements import Requirement
from verl.trainer.ppo.utils import need_critic, need_reference_policy  # type: ignore[import-not-found]
from verl.utils.config import omega_conf_to_dataclass, validate_config  # type: ignore[import-not-found]

from loadtests.verl.findings import Findings
from loadtests.verl.rollouts import Comparison

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def check_requirements(findings: Findings) -> None:
    """Compare what our package asks for without an extra, and what verl asks for, with what is installed."""
    lines = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"]
    lines += [line for line in importlib.metadata.requires("verl") or [] if "extra ==" not in line]
    for wanted in map(Requirement, lines):
        version = importlib.metadata.version(wanted.name)
        fits = wanted.specifier.contains(version, prereleases=True)
        findings.same(f"{wanted.name} {version} fits {wanted}", fits, True)


def check_config(config: Any, findings: Findings, name: str) -> None:
    """Have verl check a composed configuration, as ``main_ppo`` does, and read its parts into verl's own classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns that GRPO has no critic.
        has_critic = need_critic(config)
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=has_critic)
    for part in (config.actor_rollout_ref.rollout, config.algorithm):
        omega_conf_to_dataclass(part)
    findings.same(f"{name}: has a critic", has_critic, config.algorithm.adv_estimator == "gae")
    findings.same(f"{name}: the loop", config.actor_rollout_ref.rollout.agent.default_agent_loop, "searchr1")


def main() -> None:
    """Read the command line, check, and say what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="composed configuration of the run that is rolled out")
    parser.add_argument("--retriever", required=True, help="URL of the run's retriever")
    parser.add_argument("--version", required=True, help="the version that verl has to have")
    parser.add_argument("composed", type=Path, nargs="+", help="composed configurations")
    arguments = parser.parse_args()
    findings = Findings()
    findings.same("version of verl", verl.__version__, arguments.version)
    check_requirements(findings)
    for path in arguments.composed:
        check_config(OmegaConf.load(path), findings, path.stem)
    comparison = Comparison(OmegaConf.load(arguments.run), arguments.retriever, findings)
    num_trajectories = asyncio.run(comparison.check())
    for fault in findings.faults:
        print(f"check-verl: {fault}", file=sys.stderr)
    print(
        f"check-verl: verl {verl.__version__}: {len(arguments.composed)} configurations, {num_trajectories} "
        f"trajectories, {findings.num_compared} comparisons, {len(findings.faults)} faults"
    )
    sys.exit(1 if findings.faults else 0)


if __name__ == "__main__":
    main()
