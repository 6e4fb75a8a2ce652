"""OpenAI's Responses over runs: ``models`` (the request), ``intake`` (request to run), ``shape`` (run to response)."""
