"""`tokenformer inspect`: what a checkpoint is, from its configuration and headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import CheckpointError, check_tensors, load_config, stored_tensors
from model_impl.config import DTYPES, PROJECTIONS, TokenformerConfig

DELTA = "growth.json"
"""The file by which a delta's directory is known (see `model_impl.checkpoint.delta`, which loads torch)."""


def inspect_checkpoint(path: str | Path) -> dict[str, Any]:
    """The facts of a checkpoint directory, ready for JSON. Sizes are in bytes, counts in parameters or tokens.

    Raises CheckpointError if the directory is no readable checkpoint or its tensors are not those of its config.
    """
    config, tensors = load_config(path), stored_tensors(path)
    try:
        check_tensors(config, {name: tensor.shape for name, tensor in tensors.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    counts = {name: math.prod(tensor.shape) for name, tensor in tensors.items()}
    dtypes = sorted({tensor.dtype for tensor in tensors.values()})
    itemsize = max(DTYPES[dtype] for dtype in dtypes)
    return {
        "checkpoint": str(path),
        "fingerprint": fingerprint(path),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_attention_heads,
        "head_dim": config.head_dim,
        "rotary_dim": config.rotary_dim,
        "activation": config.norm_activation_type,
        "vocab_size": config.vocab_size,
        "padded_vocab_size": config.padded_vocab_size,
        "max_positions": config.max_position_embeddings,
        "tied_head": config.tie_word_embeddings,
        "affine_block_norms": config.affine_block_norms,
        "dtype": ", ".join(dtypes),
        "file_bytes": sum(file.stat().st_size for file in {tensor.file for tensor in tensors.values()}),
        "parameters": sum(counts.values()),
        "embedding_parameters": sum(n for name, n in counts.items() if "embeddings" in name or "final_linear" in name),
        "token_parameters": sum(n for name, n in counts.items() if name.endswith("param_tokens")),
        "kv_bytes_per_token": 2 * config.num_hidden_layers * config.hidden_size * itemsize,
        "tokens": {projection: config.token_count(projection) for projection in PROJECTIONS},
        "stages": _stages(config),
    }


def _stages(config: TokenformerConfig) -> list[dict[str, Any]]:
    """Each stage's own tokens and, per projection, the tau of its group once this stage is the last one.

    `parameters` are those the stage added; a stage is `servable` if no later one was `retrained`.
    """
    stages, servable = [], config.servable_stages
    per_token = 2 * config.num_hidden_layers * config.hidden_size  # a key and a value in every block
    for index, stage in enumerate(config.stages):
        groups = {projection: config.norm_groups(projection, index) for projection in PROJECTIONS}
        tau = {p: groups[p][-1].tau if stage.tokens[p] else None for p in PROJECTIONS}
        tokens = {p: stage.tokens[p] for p in PROJECTIONS}
        entry = {"name": stage.name, "group": stage.norm_group, "tokens": tokens, "tau": tau}
        parameters = per_token * sum(tokens.values())
        stages.append(entry | {"parameters": parameters, "retrained": stage.retrained, "servable": index in servable})
    return stages


def format_report(report: dict[str, Any]) -> str:
    """The report of `inspect_checkpoint` as text: one fact per line, then one line per growth stage."""
    facts = [
        ("checkpoint", report["checkpoint"]),
        ("fingerprint", report["fingerprint"]),
        ("layers", report["layers"]),
        ("hidden size", report["hidden_size"]),
        ("heads", f"{report['heads']} of {report['head_dim']} dimensions, {report['rotary_dim']} rotary"),
        ("activation", report["activation"]),
        ("block norms", "affine" if report["affine_block_norms"] else "without weights"),
        ("output head", "tied to the embedding" if report["tied_head"] else "untied"),
        ("vocabulary", f"{report['vocab_size']:,} ids, {report['padded_vocab_size']:,} rows"),
        ("max positions", f"{report['max_positions']:,}"),
        ("dtype", report["dtype"]),
        ("weights", f"{report['file_bytes']:,} bytes"),
        ("parameters", f"{report['parameters']:,}"),
        ("  embedding", f"{report['embedding_parameters']:,}"),
        ("  parameter tokens", f"{report['token_parameters']:,}"),
        ("KV cache", f"{report['kv_bytes_per_token']:,} bytes per token"),
    ]
    rows = [["growth stage", "group", *PROJECTIONS, "parameters", "servable"]]
    for stage in report["stages"]:
        cells = [f"{n} (tau {stage['tau'][p]:.4g})" if n else "0" for p, n in stage["tokens"].items()]
        servable = "yes" if stage["servable"] else "no: later training changed its tokens"
        rows.append([stage["name"], str(stage["group"]), *cells, f"{stage['parameters']:,}", servable])
    rows.append(["parameter tokens", "", *(str(report["tokens"][projection]) for projection in PROJECTIONS), "", ""])
    return "\n".join([*aligned([[label, str(value)] for label, value in facts]), "", *aligned(rows)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
