"""Results and what is made of them: files, numbers, goals, rates for the simulator, and the report."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.agents import __main__ as command
from loadtests.agents.calibration import Decoding, fitted
from loadtests.agents.engine import EngineOptions, counted, counters_of
from loadtests.agents.goals import goals_table
from loadtests.agents.operating import scheduling_of
from loadtests.agents.playing import Played
from loadtests.agents.report import write_report
from loadtests.agents.result import Result, append, read
from loadtests.agents.validation import TracedSearches, compared, engine_params, without_end
from searchr1.demo.bundle import CHECKPOINT
from searchr1.tokenizer import Tokenizer
from tests.agents.worlds import small_trace

RATES = {"step_s": 0.02, "prefill_token_s": 0.0009, "decode_s": 0.004, "context_token_s": 0.000001}


def result(arm: str, ends_s: list[float], **more: object) -> Result:
    runs = tuple(Played(f"{n:04d}", 0.0, end, "ended") for n, end in enumerate(ends_s))
    asked = {
        "scenario": "rush",
        "repeat": 1,
        "trace": small_trace().digest,
        "began": "2026-01-01T00:00:00",
        "capacity_tokens": 4096,
        "footprint_tokens": 9000,
        "counters": {"prompt_tokens": 1000, "prompt_tokens_cached": 600, "num_preemptions": 2},
    }
    return Result(arm=arm, num_runs=len(runs), runs=runs, **{**asked, **more})  # type: ignore[arg-type]


def test_numbers_come_from_the_runs_that_ended() -> None:
    lost = Played("0009", 0.0, 50.0, "lost", "503")
    found = result("ours", [10.0, 20.0, 30.0], least_prefill_tokens=100)
    found = replace(found, runs=(*found.runs, lost), num_runs=4)
    assert found.latencies_s == [10.0, 20.0, 30.0]
    assert found.makespan_s == 50.0
    assert found.runs_per_min == pytest.approx(3.6)
    assert (found.mean_s, found.quantile_s(0.5), found.quantile_s(0.95)) == (20.0, 20.0, 30.0)
    assert found.cached == 0.6
    assert found.recomputed_tokens == 75.0
    assert (found.num_of("ended"), found.num_of("lost"), found.num_of("wrong")) == (3, 1, 0)


def test_an_arm_without_ended_runs_has_no_numbers() -> None:
    found = replace(result("ours", [1.0]), runs=(Played("0000", 0.0, 9.0, "lost"),), counters={})
    assert (found.runs_per_min, found.mean_s, found.quantile_s(0.95), found.cached) == (0.0, 0.0, 0.0, 0.0)


def test_a_file_keeps_results_and_the_last_of_each(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert read(file) == []
    first, again, other = result("ours", [1.0]), result("ours", [2.0]), result("ours", [3.0], repeat=2)
    for one in (first, other, again):
        append(file, one)
    assert read(file) == [again, other]


def test_counters_are_read_and_subtracted() -> None:
    before = counters_of('vllm:prompt_tokens_total{engine="0"} 5.0\nvllm:num_preemptions_total{engine="0"} 1.0\n')
    after = counters_of('vllm:prompt_tokens_total{engine="0"} 12.0\nvllm:num_preemptions_total{engine="0"} 1.0\n')
    found = counted(before, after)
    assert (found["prompt_tokens"], found["num_preemptions"], found["prompt_tokens_cached"]) == (7, 0, 0)


def test_an_engine_is_started_as_it_is_described() -> None:
    options = EngineOptions(checkpoint=Path("model"), kv_tokens=12_800, more=("--seed", "3"))
    command = " ".join(options.command("python", 21_300, "priority"))
    assert "--scheduling-policy priority" in command
    assert "--num-gpu-blocks-override 100" in command
    assert command.endswith("--seed 3")
    assert "--num-gpu-blocks-override" not in " ".join(replace(options, kv_tokens=None).command("python", 1, "fcfs"))


def test_rates_are_found_again() -> None:
    decodings = [
        Decoding(n, context, RATES["step_s"] + n * RATES["decode_s"] + n * context * RATES["context_token_s"])
        for n, context in ((1, 128), (8, 128), (64, 128), (16, 2048))
    ]
    prefills = [(n, 0.05 + n * RATES["prefill_token_s"]) for n in (256, 1024, 2048)]
    assert fitted(prefills, decodings) == pytest.approx(RATES)


def test_no_rate_is_negative() -> None:
    decodings = [Decoding(n, context, 0.02 + 0.004 * n) for n, context in ((1, 128), (8, 128), (8, 2048))]
    decodings.append(Decoding(16, 2048, 0.05))
    found = fitted([(256, 0.3), (1024, 1.0)], decodings)
    assert min(found.values()) >= 0
    assert found["decode_s"] > 0


def test_traced_searches_take_their_time_once_where_there_is_a_cache() -> None:
    trace = small_trace()
    query = trace.runs[0].searches[0].query
    latency_s = trace.latency_s(query)
    searches = TracedSearches(trace, is_cached=True)
    assert searches.latency_s(query, 10.0) == pytest.approx(latency_s)
    assert searches.latency_s(query, 10.0 + latency_s / 2) == pytest.approx(latency_s / 2)
    assert searches.latency_s(query, 99.0) < 0.01
    assert [TracedSearches(trace, is_cached=False).latency_s(query, at) for at in (0.0, 99.0)] == [latency_s] * 2


def test_arms_are_simulated_on_their_own_trace() -> None:
    trace, tokenizer = small_trace(), Tokenizer.load(str(CHECKPOINT))
    params = engine_params(RATES, 4096, block_size=128, max_num_seqs=64)
    ends = [10.0] * len(trace.runs)
    results = [result(arm, ends) for arm in ("plain", "ours", "thunderagent", "oracle")]
    results.append(result("plain", ends, trace="another"))
    found = compared(results, trace, tokenizer, params, scheduling_of(trace))
    assert [one.measured.arm for one in found] == ["plain", "ours", "thunderagent"]
    for one in found:
        assert one.errors["makespan"] == pytest.approx(one.simulated.makespan_s / 10.0 - 1)
        assert one.errors["cached"] == pytest.approx(one.simulated.cached - 0.6)


def test_nothing_is_faster_than_a_cache_for_all_runs() -> None:
    trace, tokenizer = small_trace(), Tokenizer.load(str(CHECKPOINT))
    params = engine_params(RATES, 4096, block_size=128, max_num_seqs=64)
    boundless = without_end(trace, tokenizer, params, None)
    assert boundless.kept == pytest.approx(1.0, abs=0.2)  # Blocks that are not full are computed again.
    assert boundless.num_preemptions == 0
    ends = [10.0] * len(trace.runs)
    arms = [result(arm, ends) for arm in ("plain", "ours", "thunderagent")]
    for one in compared(arms, trace, tokenizer, params, scheduling_of(trace)):
        assert boundless.makespan_s <= one.simulated.makespan_s
        assert boundless.recomputed_tokens <= one.simulated.recomputed_tokens


def test_goals_are_told_honestly() -> None:
    plain, thunder = result("plain", [40.0, 90.0]), result("thunderagent-decay", [60.0, 60.0])
    table = goals_table([plain, thunder, result("thunderagent", [80.0, 80.0]), result("ours", [30.0, 36.0])])
    assert "| throughput over plain agents' | ≥ 2.2 | 2.50 | reached |" in table
    assert "| 95th percentile over plain agents' | ≤ 0.45 | 0.40 | reached |" in table
    assert "| throughput over ThunderAgent's | ≥ 1.5 | 1.67 | reached |" in table
    assert "| mean over ThunderAgent's | ≤ 0.5 | 0.55 | **missed** |" in table
    assert "oracle" not in table
    knowing = replace(result("oracle", [30.0]), counters={"prompt_tokens": 1000, "prompt_tokens_cached": 700})
    table = goals_table([result("ours", [30.0]), replace(knowing, num_runs=1)])
    assert "| cached share below the best oracle's, points | ≤ 5 | 10.0 | **missed** |" in table
    assert goals_table([plain]) == ""


def test_calm_has_aims_of_its_own_and_some_aims_begin_with_many_runs() -> None:
    calm = [replace(one, scenario="calm") for one in (result("plain", [40.0, 90.0]), result("ours", [41.0, 90.0]))]
    table = goals_table(calm)
    assert "| calm, 2 | throughput over plain agents' | ≥ 0.98 | 1.00 | reached |" in table
    assert "2.2" not in table
    table = goals_table([result("infer-py", [60.0]), result("ours", [20.0])])
    assert "| answers a minute over infer.py's way | ≥ 30 | 3.00 | aimed at from 64 runs on |" in table


def test_the_report_has_tables_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    trace = small_trace()
    trace.write(tmp_path / f"trace-{trace.digest}.json")
    ends = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    results = [result("plain", ends), result("ours", [end / 2 for end in ends]), result("ours", ends, repeat=2)]
    results.append(replace(result("calibration", ends), runs=(), rates=RATES))
    results.append(result("infer-py", [100.0, 200.0], scenario="alone"))
    for one in results:
        append(tmp_path / "results.jsonl", one)
    told = ["agents", "report", str(tmp_path), "--model", str(CHECKPOINT), "--docs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", told)
    command.main()
    page = (tmp_path / "agents.md").read_text(encoding="utf-8")
    assert "| ours | 45.0 | 9.0 |" in page
    assert "| rush 6 | plain | 60.0, " in page
    assert "* rush 6: a makespan of " in page
    assert "2.2 times the KV cache's 4,096" in page
    for picture in ("agents-latencies.png", "agents-parts.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no measured arm"):
        write_report(tmp_path, CHECKPOINT, tmp_path)
