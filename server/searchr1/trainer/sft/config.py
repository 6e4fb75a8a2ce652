"""The configuration of a supervised fine-tuning: a typed YAML file, with a meaning, unit and default for each field.

Nothing here imports torch, so that what is wrong with a file is told at once.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from searchr1.errors import ConfigurationError, as_value_error
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import Limits
from searchr1.trainer.rl.sections import Positive, Section, Share

_CHANGEABLE = {
    "data",
    "eval_data",
    "out_dir",
    "device",
    "compile",
    "max_minutes",
    "max_tokens_per_pass",
    "validate_every_steps",
    "num_validation_samples",
    "save_every_steps",
}
"""Settings that a resumed run may have otherwise than the run that it resumes. Its samples lie in ``out_dir``."""


class SftConfig(Section):
    """Configuration of one supervised fine-tuning."""

    model: str
    """The model to start from: a Hugging Face folder, or a hub name."""
    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Files to train on, each of token rows, of exported runs or of demonstrations; see ``samples.py``."""
    eval_data: Path | None = None
    """A file of the same kinds whose loss is measured. None: no validation."""
    out_dir: Path
    """Samples, metrics, the plot, training state, and the finished ``checkpoint`` folder."""
    profile: str = "search-r1"
    """The format of demonstrations; rows and runs have theirs in their tokens."""
    max_turns: int = Field(default=4, ge=0)
    """Turns of a demonstration with search on, as they will be served; see ``Limits``."""
    max_observation_tokens: int = Field(default=500, ge=0)
    """Tokens of a demonstration's observation, as it will be served: a longer one is cut, closing tag and all."""
    max_tokens: int = Field(default=2048, ge=2)
    """Longer samples, prompt included, are left out and counted."""
    num_samples: int | None = Field(default=None, ge=1)
    """Samples to train on, a choice by ``seed``; None: all."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of the whole run."""
    num_epochs: Positive | None = None
    """Passes over the samples, in place of ``max_steps``."""
    max_minutes: Positive | None = None
    """Minutes of training in all, resumed time included. The learning rate follows whichever bound is nearer."""
    batch_size: int = Field(default=16, ge=1)
    """Samples of an optimizer step."""
    max_tokens_per_pass: int = Field(default=4096, ge=2)
    """Tokens of one forward and backward pass, padding included; a longer sample has a pass of its own."""
    lr: Positive = 1e-4
    """Peak learning rate of AdamW."""
    warmup: Share = 0.05
    """Share of the run over which ``lr`` rises."""
    decay: Share = 0.9
    """Share of the run, at its end, over which it falls to 0 as a cosine."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moments."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: Positive = 1.0
    """Norm that gradients are clipped to."""
    max_bad_steps: int = Field(default=5, ge=1)
    """Steps in a row with a loss or gradient that is not finite, each skipped, after which the run ends."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights that compute. The optimizer's own are float32."""
    device: str = "cpu"
    """Device of the model: cpu, cuda."""
    compile: bool = False
    """Compile the layers: faster after some minutes, spent on one width of batches after the other; needs a C++
    compiler."""
    validate_every_steps: int = Field(default=50, ge=1)
    """Steps between validations; the last step is always validated."""
    num_validation_samples: int = Field(default=64, ge=1)
    """Samples of a validation."""
    save_every_steps: int = Field(default=50, ge=1)
    """Steps between saves; the last step is always saved."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice and the order of samples."""

    @field_validator("profile")
    @classmethod
    @as_value_error()
    def _check_profile(cls, value: str) -> str:
        return profile_named(value).name

    @model_validator(mode="after")
    @as_value_error()
    def _has_an_end(self) -> Self:
        if self.max_steps is None and self.num_epochs is None and self.max_minutes is None:
            raise ConfigurationError("a run needs max_steps, num_epochs or max_minutes")
        if self.max_steps is not None and self.num_epochs is not None:
            raise ConfigurationError("max_steps and num_epochs exclude each other")
        return self

    def limits(self) -> Limits:
        """Return the loop's bounds for demonstrations; those of tokens but the observation's are far off."""
        return Limits(
            max_turns=self.max_turns,
            max_observation_tokens=self.max_observation_tokens,
            max_completion_tokens=self.max_tokens,
            max_context_tokens=self.max_tokens,
            max_trajectory_tokens=self.max_tokens,
        )

    def identity(self) -> dict[str, object]:
        """Return the settings that a resumed run must share with the first; its time and place may differ."""
        fields: dict[str, object] = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if name not in _CHANGEABLE}
