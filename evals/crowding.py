"""Does the geometry of its parameter tokens tell when a model is full, and does growth relieve it?

    python -m evals.crowding > evals/results/CROWDING.md

Small models of two widths learn loads of random facts, name to value, half of them rare (seen once an epoch) and half
common (four times). A full model then trains on, or grows by half and trains its new tokens on the same facts, for
the same number of updates. The measures are those of `tokenformer inspect --geometry`, means over layers.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from scipy.stats import spearmanr

from model_impl.checkpoint.grow import grown_tensors, new_stage
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import GrowthStage, TokenformerConfig
from model_impl.huggingface import TokenformerForCausalLM
from model_impl.reference.geometry import rows
from model_impl.reference.model import ReferenceTokenformer, with_weights
from model_impl.training.optimizer import MuonWithAdamW
from server.calibrate.markdown import table

NAMES, VALUES = 96, 32
"""The vocabulary: a name is two tokens of the first kind, its value one of the second."""

WIDTHS, LOADS, SEEDS = (16, 32), (64, 256, 1024, 2048), (0, 1)
EPOCHS, UPDATES, BATCH, RATE = 12, 800, 64, 5e-3
"""At least so many epochs and updates: a small load must not be wrong for want of training."""

REPEATS = 4


@dataclass(frozen=True)
class Facts:
    """ids [facts, 3]: a name of two tokens and its value; the first half is common."""

    ids: torch.Tensor

    @classmethod
    def random(cls, count: int, seed: int) -> Facts:
        generator = torch.Generator().manual_seed(seed)
        names = torch.randperm(NAMES * NAMES, generator=generator)[:count]
        values = torch.randint(VALUES, (count,), generator=generator) + NAMES
        return cls(torch.stack([names // NAMES, names % NAMES, values], dim=1))

    def epoch(self, generator: torch.Generator) -> torch.Tensor:
        half = len(self.ids) // 2
        seen = torch.cat([self.ids[:half].repeat(REPEATS, 1), self.ids[half:]])
        return seen[torch.randperm(len(seen), generator=generator)]

    @torch.no_grad()
    def accuracy(self, model: TokenformerForCausalLM) -> tuple[float, float]:
        """The shares of common and of rare facts that the model states."""
        right = (model.eval()(self.ids[:, :2]).logits[:, -1].argmax(-1) == self.ids[:, 2]).float()
        half = len(right) // 2
        return right[:half].mean().item(), right[half:].mean().item()


def shape(width: int) -> TokenformerConfig:
    tokens = dict.fromkeys(("query", "key", "value", "output"), width) | {"ffn": 4 * width}
    return TokenformerConfig(
        vocab_size=NAMES + VALUES,
        padded_vocab_size=NAMES + VALUES,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        partial_rotary_factor=0.5,
        eos_token_id=None,
        growth_stages=[GrowthStage("base", tokens).to_dict()],
    )


def train(model: TokenformerForCausalLM, facts: Facts, seed: int) -> None:
    optimizer = MuonWithAdamW(model.train(), RATE, 0.01)
    generator = torch.Generator().manual_seed(seed)
    size = len(facts.epoch(generator).split(BATCH))
    epochs = max(EPOCHS, -(-UPDATES // size))
    batches = [batch for _ in range(epochs) for batch in facts.epoch(generator).split(BATCH)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.99 * step / len(batches))
    for batch in batches:
        labels = torch.cat([torch.full_like(batch[:, :2], -100), batch[:, 2:]], dim=1)
        model(batch, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        model.zero_grad()


def loaded(config: TokenformerConfig, weights: dict[str, torch.Tensor]) -> TokenformerForCausalLM:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint"
        write_checkpoint(path, config, weights.items(), {})
        model: TokenformerForCausalLM = TokenformerForCausalLM.from_pretrained(path)
    return model


def grown(config: TokenformerConfig, weights: dict[str, torch.Tensor]) -> TokenformerForCausalLM:
    tokens = {projection: count // 2 for projection, count in config.stages[-1].tokens.items()}
    stage = new_stage(config, tokens, "more", "grouped", "zero-values")
    tensors = dict(grown_tensors(weights.items(), config, stage, "zero-values", 0))
    return loaded(config.with_stages([*config.stages, stage]), tensors)


MEASURES = ("key coherence", "value coherence", "key rank", "value rank", "at work")


def measures(config: TokenformerConfig, weights: dict[str, torch.Tensor], facts: Facts) -> list[float]:
    """MEASURES of the feed-forward tokens; ranks are relative to those of random tokens."""
    found = list(rows(with_weights(config, weights), [facts.ids[:256, :2]]))
    ffn = [row for row in found if row.projection == "ffn" and row.use is not None]
    return [
        mean(row.keys.coherence for row in ffn),
        mean(row.values.coherence for row in ffn),
        mean(row.keys.effective_rank / row.random.effective_rank for row in ffn),
        mean(row.values.effective_rank / row.random.effective_rank for row in ffn),
        mean(row.use.participation / row.keys.tokens for row in ffn if row.use is not None),
    ]


def main() -> None:
    torch.set_num_threads(1)
    lines: list[list[str]] = []
    relief: list[list[str]] = []
    points: list[list[float]] = []
    for width in WIDTHS:
        config = shape(width)
        for load in LOADS:
            runs, after = [], []
            for seed in SEEDS:
                facts = Facts.random(load, seed)
                torch.manual_seed(seed)
                model = loaded(config, ReferenceTokenformer(config).state_dict())
                train(model, facts, seed)
                weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                runs.append([*facts.accuracy(model), *measures(config, weights, facts)])
                points.append([width, load, *runs[-1]])
                if load == LOADS[-1]:
                    train(model, facts, seed + 100)
                    bigger = grown(config, weights).freeze_before("more")
                    train(bigger, facts, seed + 100)
                    after.append([*runs[-1][:2], *facts.accuracy(model), *facts.accuracy(bigger)])
            means = [mean(column) for column in zip(*runs, strict=True)]
            lines.append([str(width), str(load), *(f"{value:.2f}" for value in means)])
            if after:
                relief.append([str(width), str(load), *(f"{mean(c):.2f}" for c in zip(*after, strict=True))])
    print("# Crowding\n")
    print(" ".join((__doc__ or "").split("\n\n")[2].split()), f"Means of {len(SEEDS)} seeds.\n")
    print(table(["width", "facts", "common right", "rare right", *MEASURES], lines))
    print("\nSpearman correlation with the share of rare facts that are right, over all runs, and within each width:\n")
    table_rows = []
    for i, name in enumerate(MEASURES):
        parts = [points, *([p for p in points if p[0] == width] for width in WIDTHS)]
        cells = [f"{spearmanr([p[4 + i] for p in part], [p[3] for p in part]).statistic:.2f}" for part in parts]
        table_rows.append([name, *cells])
    print(table(["measure", "all", *(f"width {width}" for width in WIDTHS)], table_rows))
    print("\nA full model, trained on as long again, or grown by half with only its new tokens trained:\n")
    head = ["width", "facts", "common", "rare", "trained on: common", "rare", "grown: common", "rare"]
    print(table(head, relief))


if __name__ == "__main__":
    main()
