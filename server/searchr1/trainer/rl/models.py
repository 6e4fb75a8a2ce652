"""The models of a run: loaded, prepared for training, and spread over the processes.

Weights that are trained are float32. Passes are in the type that ``optimizer.dtype`` says: FSDP2 casts what it gathers
where there are several processes, a working copy has that type where there is one.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.lora import add_adapters
from searchr1.trainer.rl.policy import Critic, Policy, checkpoint_layers, compile_layers, decoder_layers, load_policy
from searchr1.trainer.rl.working import WorkingCopy

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run, on this process's device."""

    policy: Policy
    reference: Policy | None
    """The policy as it was at the start, frozen; None without a KL, and with adapters, which can be turned off."""
    critic: Critic | None
    copies: Sequence[WorkingCopy]

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Have the models compute with their working copies, where they have some, within the block."""
        with ExitStack() as stack:
            for copy in self.copies:
                stack.enter_context(copy.in_use())
            yield


def load_models(config: TrainConfig, source: Path, processes: ProcessGroup, *, with_critic: bool) -> Models:
    """Load the models of a run that starts from the folder ``source``.

    The processes take turns, so that the machine holds one whole model at a time.

    Raises:
        ConfigurationError: there is no such model, or ``config`` asks for adapters on layers that it does not have.
    """
    loader = _Loader(config, source, processes)
    policy = loader.policy()
    reference = loader.reference() if config.loss.kl_coef > 0 and config.lora is None else None
    return Models(policy, reference, loader.critic() if with_critic else None, loader.copies)


class _Loader:
    def __init__(self, config: TrainConfig, source: Path, processes: ProcessGroup) -> None:
        self.copies: list[WorkingCopy] = []
        self._config, self._source, self._processes = config, source, processes
        self._dtype = torch.bfloat16 if config.optimizer.dtype == "bfloat16" else torch.float32
        self._is_alone = processes.size == 1

    def policy(self) -> Policy:
        with self._processes.in_turn():
            model = load_policy(self._source, self._processes.device, whole=self._is_alone)
            self._prepare(model)
            return self._spread(Policy(model, dtype=torch.float32), model)

    def reference(self) -> Policy:
        # What no optimizer moves may as well be kept in the passes' own type.
        with self._processes.in_turn():
            model = load_policy(self._source, self._processes.device, dtype=self._dtype, whole=self._is_alone)
            self._prepare(model)
            return self._shard(Policy(model, dtype=torch.float32).requires_grad_(False), model)

    def critic(self) -> Critic:
        torch.manual_seed(self._config.seed)
        with self._processes.in_turn():
            critic = Critic(self._source, self._processes.device, dtype=torch.float32, whole=self._is_alone)
            self._prepare(critic.base)
            # A value in bfloat16 would have three digits.
            return self._spread(critic, critic.base, exact=[critic.head])

    def _prepare(self, model: PreTrainedModel) -> None:
        if self._config.lora is not None:
            add_adapters(model, self._config.lora, seed=self._config.seed)
        if self._config.optimizer.activation_checkpointing:
            checkpoint_layers(model)
        if self._config.optimizer.compile_layers:
            compile_layers(model)

    def _spread(self, module: M, model: PreTrainedModel, *, exact: Sequence[nn.Module] = ()) -> M:
        if self._is_alone and self._dtype == torch.bfloat16:
            self.copies.append(WorkingCopy(module, exact=exact))
        return self._shard(module, model, exact=exact)

    def _shard(self, module: M, model: PreTrainedModel, *, exact: Sequence[nn.Module] = ()) -> M:
        return self._processes.shard(module, list(decoder_layers(model)), dtype=self._dtype, exact=exact)
