"""``search-r1``: the loop that serves."""

from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import SEARCH_R1, register

if TYPE_CHECKING:
    from searchr1.driver import DriveStats
    from searchr1.evaluation.baselines.trial import Trial, TrialOutcome
    from searchr1.loop.machine import Rollout


@register(SEARCH_R1, title="Search-R1", order=0, paper_row=6, searches=True)
async def search_r1(trial: "Trial") -> None:
    """Let the model search when it likes, for what it likes: the loop and the driver that serve."""
    from searchr1.driver import DriveStats, drive_to_end
    from searchr1.rollout import start_rollout

    options, outcome, tokenizer, stats = trial.options, trial.outcome, trial.tools.tokenizer, DriveStats()
    rollout = start_rollout(trial.question, tokenizer, profile=options.profile, limits=options.limits)
    driven = await drive_to_end(rollout, trial.tools.engine, trial.tools.retriever, trial.drive_options, stats)
    outcome.queries, outcome.failed_searches = list(driven.queries), driven.num_failed_searches
    outcome.error = None if driven.engine_error is None else str(driven.engine_error)
    _take_over(outcome, rollout, stats)


def _take_over(outcome: "TrialOutcome", rollout: "Rollout", stats: "DriveStats") -> None:
    assert rollout.status is not None
    tokens = {"prompt": 0, "completion": 0, "observation": 0, "retry": 0}
    for segment in rollout.segments:
        tokens[segment.kind] += len(segment.ids)
    outcome.status, outcome.answer = rollout.status.value, rollout.answer
    outcome.turns, outcome.searches, outcome.invalid_turns = (
        rollout.num_turns,
        rollout.num_searches,
        rollout.num_invalid,
    )
    outcome.retried = tokens["retry"] > 0
    outcome.prompt_tokens = tokens["prompt"]
    outcome.completion_tokens = rollout.num_sampled_tokens
    outcome.observation_tokens = tokens["observation"] + tokens["retry"]
    outcome.cached_tokens = stats.num_cached_tokens
