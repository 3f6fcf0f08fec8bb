"""The cost of serving several growth stages from one copy, against serving the last stage alone.

    python -m loadtest.stages [--rounds 7] [--out loadtest/results/stages.json]
    python -m loadtest.stages --checkpoint demo/checkpoint --out loadtest/results/demo-stages.json

All sides run in one process on the same batch shape, alternating; the ratio of the medians is the result. Without
--checkpoint, a random model is grown twice by a quarter, and beside it stands an engine that can serve only the last
stage of the very same tensors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from loadtest import machine, plots
from loadtest.in_process import generate, start
from model_impl.checkpoint.reading import expected_tensors
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig

BATCH, PROMPT_TOKENS, NEW_TOKENS = 16, 64, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--out", type=Path, default=machine.results() / "stages.json")
    parser.add_argument("--checkpoint", type=Path, help="measure the stages of this checkpoint instead")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)  # what `memory_of` starts
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory(arguments.memory)
        return
    with tempfile.TemporaryDirectory() as directory:
        several, alone = Path(directory) / "several", Path(directory) / "alone"
        if arguments.checkpoint:
            engines = {"several": started(arguments.checkpoint)}
            memory = {}
        else:
            write_grown(several, arguments.width, arguments.layers, retrained=False)
            write_grown(alone, arguments.width, arguments.layers, retrained=True)
            checkpoints = {"alone": alone, "several": several}
            memory = {name: memory_of(checkpoint) for name, checkpoint in checkpoints.items()}
            engines = {name: started(checkpoint) for name, checkpoint in checkpoints.items()}
        report = measure(engines, arguments.rounds) | {"process_mib": memory}
    report |= {"command": "python -m " + " ".join(["loadtest.stages", *sys.argv[1:]]), "machine": machine.describe()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    plots.draw("stages", arguments.out)
    print(json.dumps(report, indent=2))


def write_grown(path: Path, width: int, layers: int, *, retrained: bool) -> None:
    """Random weights: a base of width tokens (4 width in the feed-forward) grown twice by a quarter.

    `retrained` makes the last stage the only servable one, with the very same tensors.
    """
    base = {name: width * (4 if name == "ffn" else 1) for name in PROJECTIONS}
    more = {name: count // 4 for name, count in base.items()}
    stages = [GrowthStage("base", base), GrowthStage("grown-1", more, norm_group=1)]
    stages.append(GrowthStage("grown-2", more, norm_group=2, retrained=retrained))
    config = TokenformerConfig(
        vocab_size=8192,
        padded_vocab_size=8192,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=512,
        eos_token_id=None,
        growth_stages=[stage.to_dict() for stage in stages],
    )
    torch.manual_seed(0)
    tensors = ((name, torch.randn(shape) * 0.05) for name, shape in expected_tensors(config).items())
    write_checkpoint(path, config, tensors, {})


def memory_of(checkpoint: Path) -> float:
    """MiB of a separate process after its engine on `checkpoint` has run a batch."""
    command = [sys.executable, "-m", "loadtest.stages", "--memory", str(checkpoint)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(done.stdout.split()[-1])


def print_memory(checkpoint: Path) -> None:
    run(started(checkpoint), [0])
    print(round(psutil.Process().memory_info().rss / 2**20, 1))


def measure(engines: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Output tokens per second of each side; the first is what the others are compared with."""
    names = stage_names(engines["several"])
    last = len(names) - 1
    sides: dict[str, tuple[str, Sequence[int]]] = {}
    if "alone" in engines:
        sides[f"{names[last]}, served alone"] = ("alone", [0])
    sides[names[last]] = ("several", [0])
    sides |= {name: ("several", [i + 1]) for i, name in enumerate(names[:last])}
    sides["all stages mixed"] = ("several", [0, *range(1, last + 1)])
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        for name, (engine, adapters) in sides.items():
            rate = run(engines[engine], adapters)
            if round_number:  # the first round warms up
                rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(medians))
    return {
        "batch": BATCH,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "output_tokens_per_second": {name: round(rate, 1) for name, rate in medians.items()},
        f"of {first}": {name: round(rate / medians[first], 3) for name, rate in medians.items()},
        "all_rounds": {name: [round(rate, 1) for rate in values] for name, values in rates.items()},
    }


def stage_names(llm: Any) -> list[str]:
    return [stage.name for stage in llm.llm_engine.model_config.hf_config.stages]


def started(checkpoint: Path) -> Any:
    return start(checkpoint, kv_cache_memory_bytes=1 << 29, max_num_seqs=BATCH)


def run(llm: Any, adapters: Sequence[int]) -> float:
    """Output tokens per second of one batch whose requests take turns among the variants (0 is the last stage)."""
    return BATCH * NEW_TOKENS / generate(llm, BATCH, PROMPT_TOKENS, NEW_TOKENS, adapters, logprobs=0)


if __name__ == "__main__":
    main()
