"""Runs exports in real verl, as far as that goes without a GPU.

    scripts/check-verl                                    # installs verl, then runs this
    scripts/check-verl --configs configs/qwen2.5-7b-ppo.yaml

Each configuration is exported, and verl composes it by the export's ``run.sh`` and finds it valid. Then one is run:
verl's data set reads ``train.parquet``, verl's agent-loop workers drive our loop against a scripted server of
completions and a ``searchr1 retriever serve``, and verl's reward loop scores by ``reward.py``. Ids, masks, logprobs and
scores are compared with what ``cases.py`` says, worked out anew by ``expected.py``. Exits with 1 where
something differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.processes import ROOT, free_port, running, searchr1
from loadtests.verl.cases import BOUNDS, CASES, PASSAGES, REWARD
from searchr1.demo.bundle import CHECKPOINT
from searchr1.export.verl.command import VerlExport, export_verl
from searchr1.export.verl.settings import VERL_VERSION
from searchr1.retrieval.index.bm25 import build_index

CONFIGS = tuple(ROOT / "configs" / f"{name}.yaml" for name in ("qwen2.5-7b-ppo", "qwen2.5-3b-grpo"))
ROLLED_OUT = ROOT / "configs" / "atlas-grpo.yaml"
"""The run whose loop and reward are run. All have the demo's checkpoint as their model."""
_TIMEOUT_S = 900.0


class CheckFailedError(Exception):
    """verl did not do what it was asked; the message says what it printed."""


def write_world(folder: Path) -> Path:
    """Write the cases' questions and an index of their passages; return the questions' file."""
    questions = folder / "questions.jsonl"
    rows = [
        {"id": str(number), "question": case.question, "golden_answers": case.golden_answers}
        for number, case in enumerate(CASES)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    passages = [{"id": title, "contents": f'"{title}"\n{text}'} for title, text in PASSAGES]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(passage) + "\n" for passage in passages), "utf-8")
    build_index(corpus, folder / "index", progress=False)
    return questions


def exported(config: Path, out: Path, overrides: dict[str, Any]) -> Path:
    """Export a training file; return the folder."""
    export_verl(VerlExport(config, out, overrides), progress=False)
    return out


def composed(export: Path, python: Path, out: Path) -> Path:
    """Have verl compose the export's configuration by ``run.sh``; return the file that it is written to."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    done = _run(["bash", str(export / "run.sh"), "--cfg", "job"], {"PATH": path}, f"verl can't compose {export.name}")
    file = out / f"{export.name}.yaml"
    file.write_text(done, "utf-8")
    return file


def check(python: Path, configs: Sequence[Path], folder: Path) -> int:
    """Export, compose and run everything in ``folder``; return the exit code of verl's part."""
    questions, port = write_world(folder), free_port()
    retriever = f"http://127.0.0.1:{port}/retrieve"
    # verl reads the model's tokenizer where it validates a critic, and a hub may be out of reach.
    given = {"data": str(questions), "eval_data": str(questions), "retriever": retriever, "model": str(CHECKPOINT)}
    run = given | BOUNDS | {"reward": REWARD}
    exports = [exported(config, folder / config.stem, given) for config in configs]
    exports.append(exported(ROLLED_OUT, folder / "rolled-out", run))
    (folder / "composed").mkdir()
    files = [composed(export, python, folder / "composed") for export in exports]
    serve = searchr1("retriever", "serve", f"index:{folder / 'index'}", "--port", str(port))
    with running(serve, port, ready="/healthz", log=folder / "retriever.log"):
        arguments = ["--run", str(files[-1]), "--retriever", retriever, "--version", VERL_VERSION, *map(str, files)]
        command = [str(python), "-m", "loadtests.verl.inside", *arguments]
        return subprocess.run(command, env=_environment(folder), timeout=_TIMEOUT_S, check=False).returncode


def _run(command: list[str], environment: dict[str, str], what: str) -> str:
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise CheckFailedError(f"{what}:\n{done.stderr[-4000:]}")
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of verl's Python: our source beside it, and no hub."""
    paths = os.pathsep.join(str(ROOT / part) for part in ("server", "client", ""))
    return {
        **os.environ,
        "PYTHONPATH": paths,
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def main() -> None:
    """Parse the arguments and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-verl" / "bin" / "python3", help="verl's Python")
    parser.add_argument("--configs", type=Path, nargs="+", default=CONFIGS, help="training files to compose")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            sys.exit(check(arguments.python.absolute(), arguments.configs, Path(folder)))
        except CheckFailedError as error:
            sys.exit(f"check-verl: {error}")


if __name__ == "__main__":
    main()
