"""The JSON schema of a run with its trajectory: the training record."""

import json
from typing import Any

from searchr1_client.events import Run

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def record_schema() -> dict[str, Any]:
    """Return the schema of ``GET /v1/research/{run_id}`` and of each line of an exported JSON Lines file."""
    # As it is read, not as it is written: a field added later must not make the records before it invalid.
    schema = Run.model_json_schema(mode="validation")
    schema["title"] = "Search-R1 run, record version 1"
    return {"$schema": DIALECT} | schema


def record_schema_text() -> str:
    """Return ``record_schema`` as the text that is kept in ``docs/schemas/run.v1.json``."""
    return json.dumps(record_schema(), indent=2, ensure_ascii=False) + "\n"
