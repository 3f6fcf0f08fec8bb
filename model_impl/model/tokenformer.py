"""The Tokenformer on vLLM: parallel linear layers hold the parameter tokens, `Attention` the paged KV cache.

Tensor parallelism shards parameter tokens: every rank scores its own tokens, the row statistics are summed over
ranks, and the ranks' shares of w V add up to the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.distributed import (
    get_pp_group,
)
from vllm.model_executor.layers.layernorm import LayerNorm
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.interfaces import SupportsPP
from vllm.model_executor.models.utils import (
    PPMissingLayer,
    make_empty_intermediate_tensors_factory,
    make_layers,
    maybe_prefix,
)
from vllm.platforms import current_platform
from vllm.sequence import IntermediateTensors

from model_impl.checkpoint.delta import GrowthDelta, check_sizes
from model_impl.checkpoint.reading import CheckpointError
from model_impl.config import TokenformerConfig
from model_impl.kernels.cpu.attention import DirectAttention, usual_context
from model_impl.kernels.cpu.large_pages import use_large_pages
from model_impl.kernels.cpu.layers import leave_unpacked, pack_when_loaded
from model_impl.kernels.cpu.stack import PackedStack
from model_impl.kernels.cpu.weights import PackedWeight
from model_impl.kernels.words import Words
from model_impl.model.block import TokenformerBlock
from model_impl.model.loading import delta_tokens, load_official
from model_impl.model.pattention import ParallelPattention
from model_impl.model.report import Reporter, StepReport, has_rows, segment_parts
from model_impl.variants import VariantTable
from model_impl.wire import EPISTEMIC, wants_report


# Named here because vLLM cannot read them from postponed annotations: the token dimension varies.
@support_torch_compile(
    dynamic_arg_dims={"input_ids": 0, "positions": -1, "intermediate_tensors": 0, "inputs_embeds": 0}
)
class TokenformerModel(nn.Module):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = cast(TokenformerConfig, vllm_config.model_config.hf_config)
        pipeline = get_pp_group()
        has_embedding = pipeline.is_first_rank or (config.tie_word_embeddings and pipeline.is_last_rank)
        self.embed_tokens = (
            VocabParallelEmbedding(config.vocab_size, config.hidden_size) if has_embedding else PPMissingLayer()
        )
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers,
            lambda prefix: TokenformerBlock(config, vllm_config.cache_config, vllm_config.quant_config, prefix),
            prefix=f"{prefix}.layers",
        )
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps) if pipeline.is_last_rank else PPMissingLayer()
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states"], config.hidden_size
        )
        # A compiled or captured forward is traced once: what it returns and the tokens it uses are then settled. (The
        # decorator has an attribute `compiled` of its own, which is false before the first step.)
        compilation = vllm_config.compilation_config
        graphs = compilation.cudagraph_mode not in (None, CUDAGraphMode.NONE)
        self.traced = compilation.mode != CompilationMode.NONE or graphs
        self.stack: PackedStack | None = None
        """The packed blocks for steps of few rows, where all of them can be packed."""
        self.variants = VariantTable(config, vllm_config.scheduler_config.max_num_batched_tokens, traced=self.traced)
        self.reporting = False
        """Whether a request of the step wants a report."""
        self.reported_rows: torch.Tensor | None = None
        """The rows of the step that a report is wanted of; None for all."""
        self.report: StepReport | None = None
        """The last step's."""

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.embed_tokens(input_ids))

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors:
        if get_pp_group().is_first_rank:
            x = inputs_embeds if inputs_embeds is not None else self.embed_input_ids(cast(torch.Tensor, input_ids))
        else:
            assert intermediate_tensors is not None
            x = intermediate_tensors["hidden_states"]
        selection = self.variants.select(len(positions))
        stack = self.stack if self.stack is not None and len(positions) <= self.stack.small_batch else None
        if self.reporting and stack is not None and stack.parts is None:
            stack = None
        report = None
        if self.reporting:  # the few rows of a stack are not worth picking
            report = StepReport(None if stack else self.reported_rows, x, selection.tau.shape[-1])
        if selection.members is not None:
            for block in islice(self.layers, self.start_layer, self.end_layer):
                cast(TokenformerBlock, block).prepare_masks(selection.members)
        if stack is not None:
            x = stack(positions, x, selection, usual_context())
            if report is not None:
                report.take_stack(stack, len(positions))
        else:
            for block in islice(self.layers, self.start_layer, self.end_layer):
                x = block(positions, x, selection, report)
            if report is not None:
                report.end(x)
            if get_pp_group().is_last_rank:
                x = cast(torch.Tensor, self.norm(x))
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": x})
        if report is not None:
            self.keep(report)
        if not self.traced:
            self.reporting = False  # until `report_for` is told of the next step; a dummy run has no rows to report of
        return x

    def adding(self) -> list[ParallelPattention]:
        """The Pattentions that add to the residual stream, in order."""
        blocks = islice(self.layers, self.start_layer, self.end_layer)
        return [module for block in blocks for module in cast(TokenformerBlock, block).modules_in_order()[1:]]

    def keep(self, report: StepReport) -> None:
        """Keep the report of this step. A compiled or captured forward leaves no objects behind, so there its tensors
        are copied into buffers."""
        if not self.traced:
            self.report = report
            return
        for name, made in report.tensors().items():
            self.get_buffer(f"kept_{name}")[: len(made)].copy_(made)

    def make_room(self, rows: int) -> None:
        """Make the buffers of a traced model's reports of at most `rows` rows."""
        last = self.adding()[-1]
        some = cast(nn.Parameter, self.norm.weight)
        segments = self.variants.tau.shape[-1]
        self.report = StepReport(None, some.new_zeros(rows, len(some)), segments)
        self.report.weights = [some.new_zeros(rows, last.widths[0])]
        self.report.residual = torch.zeros_like(self.report.embedded)
        for name, room in self.report.tensors().items():
            self.register_buffer(f"kept_{name}", room, persistent=False)


class TokenformerForCausalLM(nn.Module, SupportsPP):
    """The model that vLLM instantiates for `architectures: ["TokenformerForCausalLM"]`."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = cast(TokenformerConfig, vllm_config.model_config.hf_config)
        self.config = config
        self.model = TokenformerModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        if get_pp_group().is_last_rank:
            head = ParallelLMHead(
                config.vocab_size,
                config.hidden_size,
                quant_config=vllm_config.quant_config,
                prefix=maybe_prefix(prefix, "lm_head"),
            )
            tied = config.tie_word_embeddings
            self.lm_head = head.tie_weights(cast(VocabParallelEmbedding, self.model.embed_tokens)) if tied else head
        else:
            self.lm_head = PPMissingLayer()
        # The vocabulary is the tokenizer's: padding rows are never loaded, so padding ids have no logit at all.
        self.logits_processor = LogitsProcessor(config.vocab_size)
        self.dtype = vllm_config.model_config.dtype
        self.max_rows = vllm_config.scheduler_config.max_num_batched_tokens
        self.reporter: Reporter | None = None
        """None where this model, as it is spread and quantised, cannot report."""
        self.places = len(config.stages) + 1
        """Columns of growth: one for each stage and one for a delta."""
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors
        if current_platform.is_cpu() and self.blocks():
            self.blocks()[-1].ffn.keeps_values = True
        if current_platform.is_cpu() and not self.model.traced:  # a compiler cannot look into our products
            for block in self.blocks():
                block.pack()
            # In another dtype vLLM multiplies by the weight itself.
            if get_pp_group().is_last_rank and self.logits_processor.head_dtype == self.dtype:
                pack_when_loaded(self.lm_head)
            if not isinstance(self.model.embed_tokens, PPMissingLayer):
                leave_unpacked(self.model.embed_tokens)

    @staticmethod
    def get_model_state_cls() -> type:
        """Called by vLLM's V2 model runner, whose modules are imported only then."""
        from model_impl.engine.model_state import TokenformerState

        return TokenformerState

    def pattentions(self) -> Iterator[ParallelPattention]:
        return (module for module in self.model.modules() if isinstance(module, ParallelPattention))

    def blocks(self) -> list[TokenformerBlock]:
        """The layers of this pipeline rank."""
        return [block for block in self.model.layers if isinstance(block, TokenformerBlock)]

    def process_weights_after_loading(self) -> None:
        """vLLM calls this when every layer has processed its own weights."""
        for block in self.blocks():
            block.packed()
        self.lay_out()
        self.prepare_reports()
        layers = (getattr(layer, "cpu_linear", None) for layer in self.modules())
        places = [weight.place() for weight in layers if isinstance(weight, PackedWeight)]
        if self.reporter is not None and self.reporter.kernel is not None:
            places.append(self.reporter.kernel.place())
        use_large_pages(places)

    def prepare_reports(self) -> None:
        """Make the reporter, of a model that lies on one pipeline rank, which sees all that the layers add."""
        head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        if get_pp_group().world_size > 1 or not (self.model.adding()[-1].readable and has_rows(head)):
            return
        last, norm = self.model.adding()[-1], cast(LayerNorm, self.model.norm)
        self.reporter = Reporter(last, norm, head, self.model.variants, self.config.ensemble_rate)
        if self.model.traced:
            self.model.reporting = True
            self.model.make_room(self.max_rows)

    def lay_out(self) -> None:
        """Build the stack of packed blocks for steps of few rows."""
        blocks = self.blocks()
        packed = [found for layer, block in enumerate(blocks) if (found := block.small_batch(layer)) is not None]
        self.model.stack = None
        if packed and len(packed) == len(blocks):
            own = [block.attention for block in blocks]
            attentions = [DirectAttention(attention.attn, attention.head_dim, attention.mix) for attention in own]
            norm = None if isinstance(self.model.norm, PPMissingLayer) else self.model.norm
            self.model.stack = PackedStack(packed, attentions, norm, segment_parts(self.model.adding()))

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors:
        output = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        return cast(torch.Tensor | IntermediateTensors, output)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return cast(torch.Tensor | None, self.logits_processor(self.lm_head, hidden_states))

    def assign_variants(self, adapter_ids: ArrayLike, row_counts: ArrayLike, members: np.ndarray | None) -> None:
        """Tell the variant of every row of the next step, as `VariantTable.assign`."""
        self.model.variants.assign(adapter_ids, row_counts, members)

    def report_for(self, extra_args: Iterable[Mapping[str, Any] | None], rows: torch.Tensor | None) -> None:
        """Report of the next step's rows `rows` int64 [R] (None: of all), if one of its requests wants it; a compiled
        step always does, of all rows."""
        if not self.model.traced:
            self.model.report = None
            self.model.reporting = self.reporter is not None and any(map(wants_report, extra_args))
            self.model.reported_rows = rows

    def reported_width(self, extra_args: Mapping[str, Any] | None) -> int:
        """The number of columns that a request with these `extra_args` gets after its statistics."""
        if self.reporter is None or not wants_report(extra_args):
            return 0
        return len(EPISTEMIC) + (self.places if self.model.variants.grown else 0)

    def reported_columns(
        self, words: Callable[[], Words], chosen: torch.Tensor, rows: torch.Tensor | slice, width: int | None = None
    ) -> torch.Tensor:
        """The columns that the last step reports of N of its rows, with their likeliest words and the tokens `chosen`
        [N] after them: float32 [N, C], cut or filled up with zeros to `width` columns."""
        report = self.model.report
        if report is None or self.reporter is None:
            return chosen.new_zeros((len(chosen), width or 0), dtype=torch.float32)
        found = self.reporter.columns(report, words(), chosen.long(), slice(None) if report.rows is not None else rows)
        return found if width is None else F.pad(found[:, :width], (0, max(width - found.shape[1], 0)))

    def add_delta(self, adapter_id: int, delta: GrowthDelta) -> None:
        """Serve checkpoint + delta as the variant `adapter_id`; raises CheckpointError and changes nothing if it
        does not fit."""
        if self.model.traced:
            raise CheckpointError("growth deltas need --enforce-eager: a compiled model's tokens are settled")
        check_sizes(delta, self.config)
        tokens = delta_tokens(delta)
        if adapter_id in self.model.variants.deltas:
            self.remove_delta(adapter_id)
        for prefix, module in self.model.named_modules():
            if isinstance(module, ParallelPattention):
                layer = int(prefix.split(".")[1])
                module.add_delta(adapter_id, {name: tokens[layer, name] for name in module.projections})
        self.lay_out()
        self.model.variants.add_delta(adapter_id, delta.stage)

    def remove_delta(self, adapter_id: int) -> bool:
        """Free a delta's tokens; no running request may use it any more."""
        if adapter_id not in self.model.variants.deltas:
            return False
        self.model.variants.remove_delta(adapter_id)
        for module in self.pattentions():
            module.remove_delta(adapter_id)
        self.lay_out()
        return True

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Fill the parameters from tensors under their official names; raises CheckpointError as `load_official`."""
        return load_official(self, self.config, range(self.model.start_layer, self.model.end_layer), weights)
