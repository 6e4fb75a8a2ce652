"""One question answered by any of the methods, on an engine and a retriever, without a gateway."""

from searchr1.errors import EngineError
from searchr1.evaluation.baselines.trial import MethodOptions, Tools, Trial, TrialOutcome
from searchr1.evaluation.methods.registry import method_named
from searchr1.tokenizer import ReservedTextError


async def answer(method: str, question: str, tools: Tools, options: MethodOptions, *, session: str) -> TrialOutcome:
    """Answer ``question`` by ``method``. Failures of the engine and of searches are in the outcome; none is raised.

    Raises:
        ConfigurationError: there is no such method.
    """
    run = method_named(method).run
    trial = Trial(question, tools, options, session=session)
    try:
        await run(trial)
    except (EngineError, ReservedTextError) as error:
        trial.outcome.status, trial.outcome.error = "failed", str(error)
    trial.outcome.duration_s = trial.elapsed_s
    return trial.outcome
