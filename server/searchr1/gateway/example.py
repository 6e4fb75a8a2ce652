"""The run that the OpenAPI document shows as an example, in the shape of each API."""

from searchr1_client import events as wire

EXAMPLE_RUN = wire.Run(
    id="run_0123456789abcdef0123456789abcdef",
    created=1_760_000_000,
    model="searchr1-atlas",
    question="Which currency is used in Mali?",
    status="completed",
    answer="West African CFA franc",
    citations=[wire.Citation(index=1, title="Mali", url="https://atlas.example/mali", start=14, end=36)],
    steps=[
        wire.Step(
            turn=1,
            reasoning="I need the currency of Mali.",
            query="currency of Mali",
            passages=[
                wire.WirePassage(
                    index=1,
                    title="Mali",
                    url="https://atlas.example/mali",
                    snippet="Mali uses the West African CFA franc.",
                    score=7.1,
                )
            ],
            cache="miss",
            duration_ms=120.0,
        ),
        wire.Step(turn=2, reasoning="The passage names it."),
    ],
    usage=wire.Usage(
        prompt_tokens=150,
        completion_tokens=48,
        observation_tokens=60,
        reasoning_tokens=42,
        cached_tokens=144,
        turns=2,
        searches=1,
        duration_ms=900.0,
    ),
)
