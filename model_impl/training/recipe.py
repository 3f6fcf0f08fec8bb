"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from model_impl.one_line_error import OneLineError


class TrainingError(OneLineError):
    """A run that cannot be started; the message is one line for the user."""


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of the demo's recipe; `None` is chosen by what is trained.

    `batch_tokens` are those of one update, over all devices; `row_tokens` those of a packed row. `learning_rate` is the
    peak, of the parameter tokens (see `model_impl.training.optimizer`), after a linear warm-up over the share `warmup`
    of all updates; a cosine ends at the share `final_share` of it. `replay_share` is that of old texts where there are
    any. `vocabulary` is the limit of a tokenizer trained on the data.
    """

    epochs: int = 1
    batch_tokens: int = 2048
    row_tokens: int | None = None
    accumulate: int = 1
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.01
    final_share: float = 0.01
    clip: float = 1.0
    replay_share: float = 0.5
    eval_share: float = 0.0
    vocabulary: int = 16384
    dtype: str = "auto"
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "accumulate", "vocabulary"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{flag(name)}: must be at least 1")
        if self.row_tokens is not None and self.row_tokens < 2:
            raise TrainingError(f"{flag('row_tokens')}: must be at least 2")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise TrainingError(f"{flag('learning_rate')}: must be above 0 and at most 1")
        if not 0 <= self.weight_decay <= 1:
            raise TrainingError(f"{flag('weight_decay')}: must be at least 0 and at most 1")
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"{flag('seed')}: must be at least 0 and below 2**32")
        if not 0 < self.replay_share < 1:
            raise TrainingError(f"{flag('replay_share')}: must be between 0 and 1")
        if not 0 <= self.eval_share < 1:
            raise TrainingError(f"{flag('eval_share')}: must be at least 0 and below 1")
        if self.dtype not in ("auto", "bfloat16", "float32"):
            raise TrainingError(f"{flag('dtype')}: {self.dtype!r} is none of auto, bfloat16, float32")


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
