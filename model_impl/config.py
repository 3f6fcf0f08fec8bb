"""The configuration of a Tokenformer: its sizes, its growth stages, and how parameter tokens are normalised.

A checkpoint's `config.json` is one `TokenformerConfig`. Parameter tokens of one projection lie in one tensor,
stage after stage; every stage names the tokens it appended, its tau and its normalisation group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from model_impl.one_line_error import OneLineError

PROJECTIONS = ("query", "key", "value", "output", "ffn")
"""The five Pattention layers of a block, in the order in which a block applies them."""

READING_OUT = ("output", "ffn")
"""The two that write to the residual stream. An ensemble masks these unless the checkpoint says otherwise: without some
tokens of query, key or value a member attends to other words, and members also disagree about what the model knows
(measured in evals/results/TABLES.md)."""

ACTIVATIONS = ("l2_norm_gelu", "gelu_l2_norm", "softmax")
"""Values of the official `norm_activation_type`; every released model has `l2_norm_gelu`."""

DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""The dtypes that a checkpoint may store, and the bytes of a number in each."""

LONGEST_NAME = 128
MAX_STAGES = 256
MAX_TAU = 1e30
"""The limit of tau, far beyond any real one; float32 holds it."""

BOUNDS = {
    "vocab_size": 1 << 24,
    "padded_vocab_size": 1 << 24,
    "hidden_size": 1 << 18,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 16,
    "max_position_embeddings": 1 << 31,
}
"""The limits of sizes. Anything computed from a configuration, such as its tensors' names, then fits in memory."""

MAX_TOKENS = 1 << 26
"""The limit of the parameter tokens of one projection in one stage."""


ENSEMBLE_RATE = 0.03
"""Default share of the parameter tokens that a member of the ensemble leaves out."""


class ConfigError(OneLineError):
    """A configuration that describes no Tokenformer; the message names the key."""


@dataclass(frozen=True)
class NormGroup:
    """Parameter tokens `start <= i < stop` that are normalised together, and the scale tau of their weights."""

    start: int
    stop: int
    tau: float


@dataclass(frozen=True)
class GrowthStage:
    """The parameter tokens that one step of growth appended to every block.

    `tokens` counts the new parameter tokens per projection. `tau` holds, per projection, the scale of the stage's
    normalisation group once this stage is the last one; None means the official rule, the square root of the
    group's current size. Stages that share a `norm_group` are normalised jointly (the official way). `retrained`
    says that training this stage also changed earlier tokens, so that no earlier stage can be served.
    """

    name: str
    tokens: Mapping[str, int]
    tau: Mapping[str, float] | None = None
    norm_group: int = 0
    retrained: bool = False

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> GrowthStage:
        known = [field.name for field in fields(cls)]
        if not {"name", "tokens"} <= set(entry) <= set(known):
            raise ConfigError(f"growth_stages: a stage has {', '.join(known)}, not {', '.join(sorted(entry))}")
        name = entry["name"]
        if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
            raise ConfigError(f"growth_stages: a stage's name must be up to {LONGEST_NAME} printable characters")
        for field in ("tokens", "tau"):
            if entry.get(field) is not None and set(entry[field]) != set(PROJECTIONS):
                raise ConfigError(f"growth_stages: {field} must name each of {', '.join(PROJECTIONS)}")
        if not all(isinstance(n, int) and 0 <= n <= MAX_TOKENS for n in entry["tokens"].values()):
            raise ConfigError(f"growth_stages: token counts must be integers from 0 to {MAX_TOKENS}")
        if not all(0 < t <= MAX_TAU for t in (entry.get("tau") or {}).values()):
            raise ConfigError(f"growth_stages: tau must be positive and at most {MAX_TAU:g}")
        if not isinstance(entry.get("norm_group", 0), int):
            raise ConfigError("growth_stages: norm_group must be an integer")
        return cls(**entry)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@strict
@dataclass(kw_only=True)
class TokenformerConfig:
    """The configuration of a Tokenformer; the defaults are the released 150M model.

    `model_impl.hf_config.HuggingFaceConfig` is the same for vLLM and transformers, whose import takes seconds.

    `vocab_size` counts the tokenizer's ids, `padded_vocab_size` the rows of the embedding: ids in between are
    padding and never have probability. `growth_stages` is the ordered list described by `GrowthStage`.
    A member of the ensemble (`model_impl.reference.ensemble`) leaves out the share `ensemble_rate` of the parameter
    tokens of `ensemble_projections`.
    """

    model_type: ClassVar[str] = "tokenformer"

    dtype: str = "float32"
    vocab_size: int = 50277
    padded_vocab_size: int = 50304
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 2048
    norm_activation_type: str = "l2_norm_gelu"
    partial_rotary_factor: float = 0.25
    rope_theta: float = 10000.0
    layer_norm_eps: float = 1e-5
    affine_block_norms: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 0
    growth_stages: list[dict[str, Any]] | None = None
    ensemble_rate: float = ENSEMBLE_RATE
    ensemble_projections: list[str] | None = None

    def __post_init__(self) -> None:
        if self.growth_stages is None:
            released = {"query": 768, "key": 768, "value": 768, "output": 768, "ffn": 3072}
            self.growth_stages = [GrowthStage("base", released).to_dict()]
        if self.ensemble_projections is None:
            self.ensemble_projections = list(READING_OUT)
        self._check()

    def _check(self) -> None:
        for name, most in BOUNDS.items():
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name}: must be from 1 to {most}")
        for name in ("rope_theta", "layer_norm_eps"):
            if not 0 < getattr(self, name) <= MAX_TAU:
                raise ConfigError(f"{name}: must be positive and at most {MAX_TAU:g}")
        if len(self.growth_stages or ()) > MAX_STAGES:
            raise ConfigError(f"growth_stages: at most {MAX_STAGES} are supported")
        if self.norm_activation_type not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ConfigError(f"norm_activation_type: {self.norm_activation_type!r} is unknown; known are {known}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size: {self.hidden_size} is not divisible by {self.num_attention_heads} attention heads"
            )
        if not 0 < self.vocab_size <= self.padded_vocab_size:
            raise ConfigError("vocab_size: must be positive and at most padded_vocab_size")
        if not 0 < self.partial_rotary_factor <= 1 or self.rotary_dim % 2 or not self.rotary_dim:
            raise ConfigError(
                f"partial_rotary_factor: {self.partial_rotary_factor} gives no even number of rotary dimensions"
            )
        if not 0 < self.ensemble_rate < 1:
            raise ConfigError(f"ensemble_rate: {self.ensemble_rate} is not between 0 and 1")
        masked = self.ensemble_projections
        if not masked or not set(masked) <= set(PROJECTIONS):
            raise ConfigError(f"ensemble_projections: {masked} are not some of {', '.join(PROJECTIONS)}")
        if not self.stages:
            raise ConfigError("growth_stages: at least one stage is needed")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ConfigError(f"growth_stages: names must differ, found {names}")
        previous = 0
        for stage in self.stages:
            if stage.norm_group not in (previous, previous + 1) or (stage is self.stages[0] and stage.norm_group):
                raise ConfigError("growth_stages: norm_group must start at 0 and rise by at most 1 from stage to stage")
            previous = stage.norm_group
        if not all(self.stages[0].tokens[projection] for projection in PROJECTIONS):
            raise ConfigError("growth_stages: the first stage needs at least one token in every projection")

    @property
    def stages(self) -> list[GrowthStage]:
        """The growth stages, oldest first."""
        return [GrowthStage.from_dict(entry) for entry in self.growth_stages or []]

    def with_stages(self, stages: Sequence[GrowthStage]) -> TokenformerConfig:
        """The same model with another growth history; raises ConfigError if `stages` are no history."""
        return replace(self, growth_stages=[stage.to_dict() for stage in stages])

    @property
    def servable_stages(self) -> list[int]:
        """Indexes of the stages whose function the tensors still hold, oldest first; the last stage always is one."""
        retrained = [i for i, stage in enumerate(self.stages) if stage.retrained]
        return list(range(max(retrained, default=0), len(self.stages)))

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Leading dimensions of each head that are rotated."""
        return int(self.head_dim * self.partial_rotary_factor)

    def token_count(self, projection: str, stage: int = -1) -> int:
        """Parameter tokens of one projection in the model as it was at `stage` (index; the last by default)."""
        last = range(len(self.stages))[stage]
        return sum(step.tokens[projection] for step in self.stages[: last + 1])

    def norm_groups(self, projection: str, stage: int = -1) -> list[NormGroup]:
        """The normalisation groups of one projection at `stage`, in token order; empty groups are left out."""
        last = range(len(self.stages))[stage]
        groups = norm_groups(self.stages[: last + 1], projection)
        return [group for group in groups.values() if group.stop > group.start]


def norm_groups(stages: Sequence[GrowthStage], projection: str) -> dict[int, NormGroup]:
    """`norm_group` number -> tokens and tau of that group in a model that consists of `stages`."""
    groups: dict[int, NormGroup] = {}
    position = 0
    for stage in stages:
        start = groups[stage.norm_group].start if stage.norm_group in groups else position
        position += stage.tokens[projection]
        tau = stage.tau[projection] if stage.tau is not None else math.sqrt(position - start)
        groups[stage.norm_group] = NormGroup(start, position, tau)
    return groups
