"""One tensor-parallel rank: `python -m tests.conformance.rank SIZE PORT=DIRECTORY...`, once per rank.

vLLM's external launcher runs a whole engine in each rank's process, so that one pair of processes serves model after
model. Each DIRECTORY holds `checkpoint` and `prompts.json`; rank 0 writes `scores.safetensors` and `answers.json`.
The ranks meet at a PORT of their own for each model: at a shared one, the faster rank would meet the last model's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import tests.conftest  # noqa: F401 - vLLM's settings, before it is imported
from tests.support.engines import (
    engine,
    ensemble_name,
    generate,
    member_requests,
    statistics_rows,
    token_params,
    whole_rows,
)
from tests.support.golden_cases import PROMPT_TOKENS

SCORES, ANSWERS = "scores.safetensors", "answers.json"
ANSWER_TOKENS = 16
MEMBERS = 3


def score(llm: Any, directory: Path) -> None:
    """Logits and statistics after every position of the prompts, greedy answers to their first tokens, and what an
    ensemble says of the first prompt's other tokens."""
    prompts = json.loads((directory / "prompts.json").read_text())
    scored = generate(llm, prompts, token_params(max_tokens=1, logprobs=-1, prompt_logprobs=-1))
    answered = generate(llm, [prompt[:PROMPT_TOKENS] for prompt in prompts], token_params(max_tokens=ANSWER_TOKENS))
    requests = member_requests("scored", MEMBERS, prompts[0][:PROMPT_TOKENS], prompts[0][PROMPT_TOKENS:])
    inputs, params = zip(*requests, strict=True)
    llm.generate(list(inputs), list(params), use_tqdm=False)
    uncertainty = [
        rows for rows in llm.collective_rpc("take_mixture", args=(ensemble_name("scored"),)) if rows is not None
    ]
    if os.environ.get("RANK", "0") != "0":
        return
    positions = [[*output.prompt_logprobs[1:], *output.outputs[0].logprobs] for output in scored]
    scores = {
        "logits": torch.stack([whole_rows(row, len(row[0])) for row in positions]),
        "statistics": torch.stack([statistics_rows(row) for row in positions]),
        "ensemble": torch.tensor(uncertainty[0]),
        "answer_statistics": torch.stack([statistics_rows(output.outputs[0].logprobs) for output in answered]),
    }
    save_file(scores, directory / SCORES)
    answers = [list(output.outputs[0].token_ids) for output in answered]
    (directory / ANSWERS).write_text(json.dumps(answers))


def name_shared_memory_after(port: str) -> None:
    """Under this launcher vLLM gives it the same name in every run, and what a killed run left would be in the way."""
    from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed

    _CPUSHMDistributed.make_group_name = staticmethod(lambda group: f"test-{port}-{group.unique_name}")


def main() -> None:
    size, models = int(sys.argv[1]), [argument.split("=", 1) for argument in sys.argv[2:]]
    options = {"tensor_parallel_size": size, "distributed_executor_backend": "external_launcher"}
    for port, name in models:
        os.environ["MASTER_PORT"] = port
        name_shared_memory_after(port)
        with engine(Path(name) / "checkpoint", logprobs_mode="raw_logits", **options) as llm:
            score(llm, Path(name))


if __name__ == "__main__":
    main()
