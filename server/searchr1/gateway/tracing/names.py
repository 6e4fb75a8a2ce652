"""Names in traces: OpenTelemetry's semantic conventions 1.41.0, and what is this server's own.

Version 1.41.0 is the last that has the conventions of generative AI beside all others. They are in development: a newer
version is taken on purpose, here, with the guide (docs/guides/tracing.md).
"""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

ERROR_TYPE: Final = "error.type"
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"

AGENT: Final = "gen_ai.agent.name"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
MODEL: Final = "gen_ai.request.model"
OPERATION: Final = "gen_ai.operation.name"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
PROVIDER: Final = "gen_ai.provider.name"
SEED: Final = "gen_ai.request.seed"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOOL: Final = "gen_ai.tool.name"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOP_P: Final = "gen_ai.request.top_p"

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"

REQUEST_ID: Final = "searchr1.request.id"
REWRITE_OUTCOME: Final = "searchr1.rewrite.outcome"
RUN_FIRST_TEXT_S: Final = "searchr1.run.first_text_s"
RUN_ID: Final = "searchr1.run.id"
RUN_OUTCOME: Final = "searchr1.run.outcome"
RUN_QUEUE_WAIT_S: Final = "searchr1.run.queue_wait_s"
RUN_SEARCHES: Final = "searchr1.run.searches"
RUN_TAKEOVERS: Final = "searchr1.run.takeovers"
RUN_TURNS: Final = "searchr1.run.turns"
SEARCH_CACHE: Final = "searchr1.search.cache"
SEARCH_OUTCOME: Final = "searchr1.search.outcome"
SEARCH_PASSAGES: Final = "searchr1.search.passages"
SEARCH_PROVIDER: Final = "searchr1.search.provider"
TURN_NUMBER: Final = "searchr1.turn.number"
TURN_OUTCOME: Final = "searchr1.turn.outcome"
TURN_REPLICA: Final = "searchr1.turn.replica"
TURN_RESUMES: Final = "searchr1.turn.resumes"
TURN_RETRIES: Final = "searchr1.turn.retries"
TURN_WAIT_S: Final = "searchr1.turn.wait_s"

COMPLETION_BROKE: Final = "searchr1.completion.broke"
COMPLETION_ASKED_AGAIN: Final = "searchr1.completion.asked_again"
