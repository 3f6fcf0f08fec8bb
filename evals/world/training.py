"""The training recipe: settings, one epoch over packed rows, and a saved state from which a run resumes."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from evals.world.corpus import epoch_chats, epoch_documents
from evals.world.packing import IGNORED, LONG_ROW, SHORT_ROW, epoch_rows
from evals.world.people import World
from evals.world.tokenizer import CONTEXT, END, special_id
from model_impl.config import GrowthStage, TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run; `dtype` is that of the matrix products, weights are float32 throughout."""

    epochs: int = 60
    short_epochs: int = 20
    batch_tokens: int = 2048
    muon_lr: float = 5e-3
    adamw_lr: float = 2e-3
    final_share: float = 0.01
    warmup: float = 0.01
    weight_decay: float = 0.01
    clip: float = 1.0
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    attention_tokens: int = 128
    ffn_tokens: int = 512
    dtype: str = "bfloat16"
    seed: int = 0

    def schedule(self, progress: float) -> float:
        """Share of the peak learning rates at `progress` in [0, 1]: linear warm-up, then a cosine to final_share."""
        if progress < self.warmup:
            return progress / self.warmup
        cosine = 0.5 + 0.5 * math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))
        return self.final_share + (1 - self.final_share) * cosine


@dataclass
class Progress:
    """The progress of a run; saved with the weights."""

    epoch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


def world_texts(world: World) -> Iterator[str]:
    """The texts that the tokenizer is trained on: one epoch of documents and chat messages."""
    yield from epoch_documents(world, 0)
    for chat in epoch_chats(world, 0):
        yield from (message["content"] for message in chat.messages())


def model_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> TokenformerConfig:
    attention = dict.fromkeys(("query", "key", "value", "output"), recipe.attention_tokens)
    return TokenformerConfig(
        vocab_size=len(tokenizer),
        padded_vocab_size=math.ceil(len(tokenizer) / 128) * 128,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        eos_token_id=special_id(END),
        growth_stages=[GrowthStage("base", attention | {"ffn": recipe.ffn_tokens}).to_dict()],
    )


class Run:
    """A model in training on one world: Muon for the parameter tokens, AdamW for the embedding and the final norm.

    Muon (Jordan et al. 2024) orthogonalises each matrix's update. On 256 people, one seed, its loss after 0.4 M tokens
    was below that of AdamW alone (2e-3, not tuned) after 1.1 M. The state is saved in `state` after every epoch; a run
    that finds one there resumes it.
    """

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, state: Path) -> None:
        """Raises ValueError where `state` belongs to another world or recipe."""
        self.world, self.tokenizer, self.recipe, self.state = world, tokenizer, recipe, state
        self.progress = Progress()
        torch.manual_seed(recipe.seed)
        self.model = self.new_model()
        named = dict(self.model.named_parameters())
        tokens = [p for name, p in named.items() if block_matrix(name, p)]
        others = [p for name, p in named.items() if not block_matrix(name, p)]
        decay = recipe.weight_decay
        muon = torch.optim.Muon(tokens, recipe.muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, recipe.adamw_lr, betas=(0.9, 0.95), weight_decay=decay)
        self.optimizers: tuple[tuple[torch.optim.Optimizer, float], ...] = (
            (muon, recipe.muon_lr),
            (adamw, recipe.adamw_lr),
        )
        self.settings = {"recipe": asdict(recipe), "world": asdict(world)}
        if state.exists():
            self._load()

    def new_model(self) -> ReferenceTokenformer:
        return ReferenceTokenformer(model_config(self.recipe, self.tokenizer))

    def train(self, report: Callable[[Progress], None]) -> None:
        """Train the epochs that are left, calling `report` after each."""
        while self.progress.epoch < self.recipe.epochs:
            self._epoch()
            self._save()
            report(self.progress)

    def _epoch(self) -> None:
        started, losses, progress = time.perf_counter(), [], self.progress
        length = SHORT_ROW if progress.epoch < self.recipe.short_epochs else LONG_ROW
        ids, labels = epoch_rows(self.world, self.tokenizer, progress.epoch, length)
        size = self.recipe.batch_tokens // length
        batches = list(zip(ids.split(size), labels.split(size), strict=True))
        for i, batch in enumerate(batches):
            share = self.recipe.schedule((progress.epoch + i / len(batches)) / self.recipe.epochs)
            losses.append(self._step(*batch, share))
        progress.epoch += 1
        progress.tokens += ids.numel()
        progress.seconds += time.perf_counter() - started
        progress.losses.append(sum(losses) / len(losses))

    def _step(self, ids: torch.Tensor, labels: torch.Tensor, share: float) -> float:
        """One update at `share` of the peak learning rates; returns the loss in nats per learned token."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.dtype == "bfloat16"):
            logits = self.model(ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer, peak in self.optimizers:
            optimizer.param_groups[0]["lr"] = share * peak
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    def _save(self) -> None:
        """Write the state atomically: an interruption leaves either the old or the new one."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        part = self.state.with_suffix(".part")
        saved = {
            "settings": self.settings,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
        }
        torch.save(saved, part)
        part.replace(self.state)

    def _load(self) -> None:
        saved = torch.load(self.state, weights_only=True)
        if saved["settings"] != self.settings:
            raise ValueError(f"{self.state} belongs to a run with other settings; remove it to start anew")
        self.progress = Progress(**saved["progress"])
        self.model.load_state_dict(saved["model"])
        for (optimizer, _), state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)


def block_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon trains the parameter: a matrix inside a block, in a Tokenformer the parameter tokens."""
    return parameter.ndim == 2 and "word_embeddings" not in name


def machine() -> str:
    """The machine of the run, without names: `1 of 2 cores, x86_64, torch 2.13.0+cpu`."""
    return f"{torch.get_num_threads()} of {os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"


def progress_line(progress: Progress, recipe: Recipe) -> str:
    """`epoch 12/60  loss 1.0213  2.4 M tokens  9,100 tok/s  4.4 min  17.6 min left`"""
    rate = progress.tokens / progress.seconds
    left = progress.seconds / progress.epoch * (recipe.epochs - progress.epoch)
    return (
        f"epoch {progress.epoch:3d}/{recipe.epochs}  loss {progress.losses[-1]:.4f}  "
        f"{progress.tokens / 1e6:5.1f} M tokens  {rate:6,.0f} tok/s  "
        f"{progress.seconds / 60:4.1f} min  {left / 60:4.1f} min left"
    )
