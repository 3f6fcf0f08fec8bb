"""Training of a growth stage on a second world: new tokens only, or everything, with the old data replayed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedTokenizerFast

from evals.world.packing import IGNORED, SHORT_ROW, epoch_rows
from evals.world.people import World
from evals.world.training import Progress, Recipe
from model_impl.checkpoint.grow import grown_tensors, new_stage, token_tensor
from model_impl.checkpoint.reading import iterate_tensors, load_config
from model_impl.config import PROJECTIONS, TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer

Trained = Literal["new", "all"]


@dataclass(frozen=True)
class GrowthRecipe(Recipe):
    """As the base's recipe; `growth` is the number of new tokens per old one.

    `trained`: only the "new" tokens, so that the old stage stays servable as a prefix, or "all" parameters. Half of
    every batch comes from the old world, drawn uniformly: without replay the old facts are lost.
    """

    epochs: int = 30
    growth: float = 0.25
    trained: Trained = "new"
    name: str = "world-b"


def grown_config(base: TokenformerConfig, recipe: GrowthRecipe) -> TokenformerConfig:
    tokens = {projection: round(base.token_count(projection) * recipe.growth) for projection in PROJECTIONS}
    stage = new_stage(base, tokens, recipe.name, "grouped", "zero-values")
    if recipe.trained == "all":
        stage = type(stage)(**(stage.to_dict() | {"retrained": True}))
    return base.with_stages([*base.stages, stage])


class GrowthRun:
    """A base checkpoint in training on a second world, after growing it without changing what it computes."""

    def __init__(
        self, base: Path, tokenizer: PreTrainedTokenizerFast, old: World, new: World, recipe: GrowthRecipe
    ) -> None:
        self.tokenizer, self.old, self.new, self.recipe = tokenizer, old, new, recipe
        self.progress = Progress()
        self.base_config = load_config(base)
        self.config = grown_config(self.base_config, recipe)
        tensors = grown_tensors(
            iterate_tensors(base), self.base_config, self.config.stages[-1], "zero-values", recipe.seed
        )
        self.model = ReferenceTokenformer(self.config)
        self.model.load_state_dict(dict(tensors))
        self.fresh = {name: nn.Parameter(rows) for name, rows in self._new_rows() if len(rows)}
        if recipe.trained == "new":
            self.model.requires_grad_(False)
            matrices, others = list(self.fresh.values()), []
        else:
            named = dict(self.model.named_parameters())
            matrices = [p for name, p in named.items() if token_tensor(name)]
            others = [p for name, p in named.items() if not token_tensor(name)]
        settings = {"weight_decay": recipe.weight_decay}
        muon = torch.optim.Muon(matrices, recipe.muon_lr, adjust_lr_fn="match_rms_adamw", **settings)
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [(muon, recipe.muon_lr)]
        if others:
            adamw = torch.optim.AdamW(others, recipe.adamw_lr, betas=(0.9, 0.95), **settings)
            self.optimizers.append((adamw, recipe.adamw_lr))
        self.trainable = [*matrices, *others]

    def _new_rows(self) -> list[tuple[str, torch.Tensor]]:
        rows = []
        for name, parameter in self.model.named_parameters():
            if role := token_tensor(name):
                rows.append((name, parameter.detach()[self.base_config.token_count(role[0]) :].clone()))
        return rows

    def tensors(self) -> dict[str, torch.Tensor]:
        """The parameters that differ from the model's own: the frozen old rows with the trained new ones below."""
        if self.recipe.trained == "all":
            return {}
        own = dict(self.model.named_parameters())
        return {name: torch.cat([own[name][: -len(rows)], rows]) for name, rows in self.fresh.items()}

    def finished_model(self) -> ReferenceTokenformer:
        """The model with the trained parameters in their places."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                self.model.get_parameter(name).copy_(tensor)
        return self.model.eval().requires_grad_(False)

    def train(self, report: Callable[[Progress], None]) -> None:
        while self.progress.epoch < self.recipe.epochs:
            self._epoch()
            report(self.progress)

    def _epoch(self) -> None:
        started, losses, progress = time.perf_counter(), [], self.progress
        ids, labels = self._rows(progress.epoch)
        size = self.recipe.batch_tokens // SHORT_ROW
        batches = list(zip(ids.split(size), labels.split(size), strict=True))
        for i, batch in enumerate(batches):
            losses.append(
                self._step(*batch, self.recipe.schedule((progress.epoch + i / len(batches)) / self.recipe.epochs))
            )
        progress.epoch += 1
        progress.tokens += ids.numel()
        progress.seconds += time.perf_counter() - started
        progress.losses.append(sum(losses) / len(losses))

    def _rows(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All rows of the new world, each followed by one drawn from the old world."""
        new, old = (epoch_rows(world, self.tokenizer, epoch, SHORT_ROW) for world in (self.new, self.old))
        drawn = Random(f"replay/{epoch}").sample(range(len(old[0])), len(new[0]))
        ids, labels = (torch.stack([a, b[drawn]], dim=1).flatten(0, 1) for a, b in zip(new, old, strict=True))
        return ids, labels

    def _step(self, ids: torch.Tensor, labels: torch.Tensor, share: float) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.dtype == "bfloat16"):
            logits = functional_call(self.model, self.tensors(), (ids[:, :-1],))
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trainable, self.recipe.clip)
        for optimizer, peak in self.optimizers:
            optimizer.param_groups[0]["lr"] = share * peak
            optimizer.step()
            optimizer.zero_grad()
        return float(loss.item())
