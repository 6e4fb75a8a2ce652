"""The schema that is kept in the documents is the code's, and says what a record is."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from searchr1.export.schema import record_schema, record_schema_text
from searchr1_client.events import Run, Trajectory
from tests.export.records import a_run, run_json
from tests.gateway.conftest import running_stage

DOCS = Path(__file__).parents[2] / "docs"
KEPT = DOCS / "schemas" / "run.v1.json"


def test_the_kept_schema_is_the_codes() -> None:
    assert KEPT.read_text(encoding="utf-8") == record_schema_text(), (
        "searchr1 export --schema > docs/schemas/run.v1.json"
    )


def test_the_files_name_has_the_version() -> None:
    version = Trajectory.model_fields["schema_version"].default
    assert KEPT.name == f"run.v{version}.json"


async def test_a_served_run_fits_the_schema() -> None:
    async with running_stage() as stage:
        asked = await stage.client.post("/v1/research", json={"question": "Q", "logprobs": True})
        served = await stage.client.get(f"/v1/research/{asked.json()['id']}")
    assert served.json()["trajectory"]["segments"]
    jsonschema_rs.validate(record_schema(), served.json())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), "done"),
        (("trajectory", "schema_version"), 2),
        (("trajectory", "segments", 0, "loss_mask", 0), 2),
        (("trajectory", "segments", 0, "kind"), "system"),
        (("trajectory", "searches", 1, "passages", 0, "title"), None),
    ],
)
def test_what_is_no_record_does_not_fit(path: tuple[str | int, ...], value: Any) -> None:
    good = a_run().model_dump(mode="json")
    jsonschema_rs.validate(record_schema(), good)
    bad = deepcopy(good)
    place: Any = bad
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(record_schema(), bad)


def test_fields_may_be_added_within_a_version() -> None:
    newer = a_run().model_dump(mode="json") | {"tomorrow": 1}
    older = run_json()
    assert not {"top_p", "max_searches"} & older["trajectory"]["options"].keys()
    for record in (newer, older):
        jsonschema_rs.validate(record_schema(), record)
        assert Run.model_validate(record) == a_run()


def test_every_field_is_documented() -> None:
    text = (DOCS / "reference" / "record.md").read_text(encoding="utf-8")
    schema = json.loads(KEPT.read_text(encoding="utf-8"))
    models = [schema, *schema["$defs"].values()]
    fields = {name for model in models for name in model.get("properties", {})}
    assert {"token_ids", "early_ms", "snippet"} <= fields
    assert sorted(name for name in fields if f"`{name}`" not in text and f"`{name}[]`" not in text) == []
