"""A pretrained model that is fine-tuned: its loss over chosen tokens, and its optimizer.

The model computes in bfloat16, which a CPU with AMX multiplies five times as fast as float32. Its small steps would be
lost in bfloat16, whose neighboring numbers are 0.4 % apart: the optimizer keeps the weights in float32 and writes them
back rounded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from searchr1.trainer.checkpoints import read_model
from searchr1.trainer.warmup.batches import TokenBatch
from searchr1.trainer.widths import WIDTH_STEP

CHUNK_TOKENS = 1024
"""Positions whose logits are in memory at once: 200 MB in float32 for a vocabulary of 49,152."""
NUM_COMPILED_WIDTHS = 64
"""Widths of batches that layers are compiled for before what is left runs uncompiled."""


class LossSums(NamedTuple):
    """Sums over the tokens in the loss of one pass, so that passes can add theirs up before dividing."""

    loss: torch.Tensor
    """Scalar float32, nats; carries the gradient."""
    num_tokens: int
    """Tokens in the loss."""
    num_right: int
    """Those of them that have the highest logit."""
    num_exact: int
    """Samples of which every token in the loss has the highest logit."""


def load_model(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Load the model of a Hugging Face folder, to compute in ``dtype``.

    Raises:
        ConfigurationError: there is no such model.
    """
    model = read_model(folder, dtype)
    model.to(device)  # type: ignore[arg-type]
    return model


def compile_layers(model: PreTrainedModel) -> None:
    """Compile each layer in place, once for all layers and for each width of its input."""
    torch._dynamo.config.recompile_limit = NUM_COMPILED_WIDTHS
    untyped: Any = model
    for layer in untyped.get_decoder().layers:
        layer.compile(dynamic=False)


def loss_sums(model: PreTrainedModel, batch: TokenBatch, device: torch.device) -> LossSums:
    """Return the cross-entropy on the tokens in the loss; logits are computed for these positions and no others.

    Padding is on the right and attention is causal, so no token in the loss can see any of it.
    """
    untyped: Any = model
    ids, in_loss = batch.ids.to(device), batch.loss_mask[:, 1:].to(device)
    shared = shared_prefix(batch)
    # What the prefix predicts is in no loss.
    hidden = _hidden(untyped.base_model, ids[:, :-1], shared)[in_loss[:, shared:]]
    targets = ids[:, 1:][in_loss]
    loss, right = torch.zeros((), device=device), []
    for part, wanted in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
        chunk: Any = checkpoint(_of_chunk, untyped.lm_head, part, wanted, use_reentrant=False)
        loss = loss + chunk[0]
        right.append(chunk[1])
    hits = torch.cat(right) if right else torch.zeros(0, dtype=torch.bool, device=device)
    rows = in_loss.nonzero()[:, 0]
    missed = torch.zeros(len(ids), dtype=torch.long, device=device).index_add_(0, rows, (~hits).long())
    return LossSums(loss, len(targets), int(hits.sum()), int((missed == 0).sum()))


def shared_prefix(batch: TokenBatch) -> int:
    """Return how many of the first tokens all rows have in common, in whole steps and before anything in the loss.

    Samples begin with the same instruction: a quarter of a short one.
    """
    if len(batch.ids) < 2:
        return 0
    differs = (batch.ids != batch.ids[:1]).any(0) | batch.loss_mask.any(0)
    common = int(differs.int().argmax()) if bool(differs.any()) else len(differs)
    # The last of them predicts the next token, which may be in the loss.
    return max(0, common - 1) // WIDTH_STEP * WIDTH_STEP


def _hidden(base: Any, ids: torch.Tensor, shared: int) -> torch.Tensor:
    """Return the last hidden states behind the ``shared`` tokens, which are computed once for all rows."""
    if not shared:
        states: torch.Tensor = base(input_ids=ids, use_cache=False).last_hidden_state
        return states
    cache = base(input_ids=ids[:1, :shared], use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(ids))
    rest: torch.Tensor = base(input_ids=ids[:, shared:], past_key_values=cache, use_cache=True).last_hidden_state
    return rest


def _of_chunk(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float()
    return cross_entropy(logits, targets, reduction="sum"), logits.detach().argmax(-1) == targets


class MasterAdamW:
    """AdamW over float32 copies of a model's weights, for a model that computes in fewer bits.

    Gradients add up in float32 pass by pass (``gather``), and ``step`` takes their mean over all tokens.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self._weights = [weight for weight in parameters if weight.requires_grad]
        self._masters = [nn.Parameter(weight.detach().float().clone()) for weight in self._weights]
        # A list as a group: its decay is for matrices alone, as norms and biases have no size to be kept small.
        groups = [
            {"params": [m for m in self._masters if m.ndim > 1], "weight_decay": weight_decay},
            {"params": [m for m in self._masters if m.ndim <= 1], "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, fused=True)

    def gather(self) -> None:
        """Add the gradients of the last pass to those of the step, and drop them from the model."""
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight.grad is not None:
                gradient = weight.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                weight.grad = None

    def step(self, *, lr: float, num_tokens: int, max_grad_norm: float) -> float:
        """Take a step by the gathered gradients over ``num_tokens``; return their norm before clipping.

        With a norm that is not finite nothing changes but that the gradients are dropped.
        """
        gradients = [master.grad for master in self._masters if master.grad is not None]
        torch._foreach_div_(gradients, float(num_tokens))
        norm = float(nn.utils.clip_grad_norm_(self._masters, max_grad_norm))
        if torch.tensor(norm).isfinite():
            for group in self._adamw.param_groups:
                group["lr"] = lr
            self._adamw.step()
            self._write_back()
        self._adamw.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, the weights in float32 among it."""
        return {"masters": [master.detach() for master in self._masters], "adamw": self._adamw.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave, into the model too."""
        with torch.no_grad():
            for master, saved in zip(self._masters, state["masters"], strict=True):
                master.copy_(saved)
        self._adamw.load_state_dict(state["adamw"])
        self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        for weight, master in zip(self._weights, self._masters, strict=True):
            weight.copy_(master)
