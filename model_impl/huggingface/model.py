"""The reference model as a transformers model: KV cache, padding, loss, `generate`, growth stages.

The formulas are the reference's own modules, and so are the official tensor names: `from_pretrained` loads what
`convert` and `grow` write, and `tokenformer serve` serves what `save_pretrained` writes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from model_impl.checkpoint.delta import grown_by, load_delta
from model_impl.checkpoint.reading import CheckpointError
from model_impl.config import ConfigError
from model_impl.hf_config import HuggingFaceConfig
from model_impl.huggingface.freezing import freeze_rows, keep_official_names
from model_impl.huggingface.generation import ServedGenerationConfig
from model_impl.reference.model import OfficialModules, Pattention, initialise, rotary_tables


class TokenformerForCausalLM(OfficialModules, PreTrainedModel, GenerationMixin):
    """Computes the growth stage `stage`, the last one by default; its tensors always hold all stages."""

    config_class = HuggingFaceConfig
    config: HuggingFaceConfig
    generation_config_class = ServedGenerationConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: HuggingFaceConfig, stage: str | None = None) -> None:
        super().__init__(config)
        self.sequential = self.build(config)
        keep_official_names(self)
        self.gradient_checkpointing = False
        self.at_stage(config.stages[-1].name if stage is None else stage)
        self.post_init()

    def at_stage(self, name: str) -> TokenformerForCausalLM:
        """Compute this stage from now on; returns the model. Raises ConfigError for one the tensors do not hold."""
        servable = [self.config.stages[i].name for i in self.config.servable_stages]
        if name not in servable:
            raise ConfigError(f"stage {name!r}: the model can compute {', '.join(servable)}")
        self.stage = [stage.name for stage in self.config.stages].index(name)
        return self

    def freeze_before(self, stage: str) -> TokenformerForCausalLM:
        """Let training change the parameter tokens of `stage` and of later ones only; returns the model.

        Tokens of earlier stages, embedding, norms and head keep their bits, whatever the optimizer does: what earlier
        stages compute would change with any of them. Call it before the optimizer is made.
        """
        names = [step.name for step in self.config.stages]
        if stage not in names:
            raise ConfigError(f"stage {stage!r} is unknown; known are {', '.join(names)}")
        self.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, Pattention):
                before = sum(step.tokens[module.projection] for step in self.config.stages[: names.index(stage)])
                freeze_rows(module, before)
        return self

    @classmethod
    def from_delta(cls, base: str | Path, delta: str | Path, **kwargs: Any) -> TokenformerForCausalLM:
        """The checkpoint directory `base` with the stage of a delta directory; raises CheckpointError if they differ.

        `kwargs` are those of `from_pretrained`.
        """
        grown, tensors = grown_by(Path(base), load_delta(delta))
        config = HuggingFaceConfig.from_pretrained(base, growth_stages=grown.growth_stages)
        model: TokenformerForCausalLM = cls.from_pretrained(None, config=config, state_dict=dict(tensors), **kwargs)
        model.generation_config = ServedGenerationConfig.from_pretrained(base)
        return model

    def forward_hidden(
        self, x: torch.Tensor, positions: torch.Tensor, mask: Any, cache: Cache | None
    ) -> list[torch.Tensor]:
        """Input and outputs of all blocks, L + 1 tensors [B, T, d], for the embeddings x and positions [B, T]."""
        cos, sin = rotary_tables(self.config, positions[:, None])  # [B, 1, T, rotary_dim], for all heads
        outputs = [x]
        for layer, block in enumerate(self.blocks()):
            mix = partial(attend, cache=cache, layer=layer, mask=mask)
            if self.gradient_checkpointing and self.training:
                x = self._gradient_checkpointing_func(block.__call__, x, self.stage, (cos, sin), mix)
            else:
                x = block(x, self.stage, (cos, sin), mix)
            outputs.append(x)
        return outputs

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_hidden_states: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As every causal language model of transformers; logits [B, T, vocab_size], without padding ids.

        Without `use_cache` a cache is kept outside of training only. The label of a position is its own token: the
        loss shifts them, and ignores -100.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("either input_ids or inputs_embeds must be given")
        x = self.embedding()(input_ids) if inputs_embeds is None else inputs_embeds
        checkpointing = self.gradient_checkpointing and self.training  # recomputing would fill a cache twice
        keep_cache = not checkpointing and (not self.training if use_cache is None else use_cache)
        if keep_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = torch.arange(seen, seen + x.shape[1], device=x.device)[None]
        mask = create_causal_mask(self.config, x, attention_mask, past_key_values, position_ids)
        hidden = self.forward_hidden(x, position_ids, mask, past_key_values)
        hidden[-1] = self.final_norm()(hidden[-1])
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = F.linear(hidden[-1][:, kept], self.head_weight())
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,  # type: ignore[arg-type]
            past_key_values=past_key_values if keep_cache else None,
            hidden_states=tuple(hidden) if output_hidden_states else None,  # type: ignore[arg-type]
        )

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """Read the checkpoint's generation configuration, into our class."""
        super().adjust_generation_fn(*args, **kwargs)  # type: ignore[misc]
        self.generation_config = ServedGenerationConfig.from_dict(self.generation_config.to_dict())

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.sequential["0"].word_embeddings = value

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Raises CheckpointError: the vocabulary is fixed, as the official code pads it."""
        raise CheckpointError("a Tokenformer's vocabulary is fixed; make a new model with another tokenizer")

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LayerNorm):
            super()._init_weights(module)
        initialise(module)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    cache: Cache | None,
    layer: int,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Attention over the cached positions and these; without a mask, row i sees its own position and those before."""
    if cache is not None:
        key, value = cache.update(key, value, layer)
    causal = mask is None and query.shape[2] > 1
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
