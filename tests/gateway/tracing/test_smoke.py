from tests.gateway.tracing.conftest import SAMPLED, traced_stage
async def test_x(collector):
    async with traced_stage() as stage:
        r = await stage.client.post("/v1/research", json={"question": "Which currency is used in Mali?"}, headers={"traceparent": SAMPLED})
        print(r.json()["status"])
        r = await stage.client.post("/v1/chat/completions", json={"messages":[{"role":"user","content": "Which currency is used in Mali?"}], "n":2})
        print(r.status_code)
    for s in sorted(collector.spans, key=lambda s: s.start_ns): print(s.trace_id[:4], s.span_id[:4], s.parent_id[:4], s.name, s.kind, (s.end_ns-s.start_ns)/1e6, s.attributes, s.events, s.has_failed)
    print(s.resource, s.schema_url)
    assert 0
