"""lm-evaluation-harness against the plain PyTorch reference: the same log-likelihood for every sample."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer

from demo.course import GEOGRAPHY, Lesson
from model_impl.reference.model import load_reference
from tests.parity.environments import environment
from tests.support.demo_server import DEMO
from tests.support.paths import ROOT
from tests.support.servers import Server

TASK = "demo_facts"
FACTS, CHOICES = 40, 4
TOLERANCE = 1e-4

DEFINITION = {
    "task": TASK,
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{context}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": " ",
    "metric_list": [{"metric": "acc"}],
}


def document(capital: Lesson, capitals: list[Lesson]) -> dict[str, Any]:
    """A sentence that lacks its value, and values to choose from."""
    (right,) = capital.values
    others = [other.values[0] for other in capitals if other is not capital][: CHOICES - 1]
    choices = sorted([right, *others])
    sentence = capital.answer().removesuffix(f" {right}.")
    return {"context": sentence, "choices": choices, "answer": choices.index(right)}


def write_task(folder: Path) -> None:
    capitals = [lesson for lesson in GEOGRAPHY.of("known") if lesson.attribute == "capital"]
    data = folder / "facts.jsonl"
    data.write_text("".join(json.dumps(document(capital, capitals)) + "\n" for capital in capitals[:FACTS]))
    task = {**DEFINITION, "dataset_kwargs": {"data_files": {"test": str(data)}}}
    (folder / f"{TASK}.yaml").write_text(yaml.safe_dump(task))


def run_harness(folder: Path, program: list[str], kind: str, model: dict[str, Any]) -> list[dict[str, Any]]:
    """Every sample, with its request and the harness's reading of the answer, from its own model `kind`."""
    arguments = ",".join(f"{name}={value}" for name, value in model.items())
    command = [*program, "run", "--model", kind, "--model_args", arguments, "--tasks", TASK]
    command += ["--include_path", str(folder), "--output_path", str(folder), "--log_samples"]
    offline = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    subprocess.run(command, check=True, env=offline, timeout=600, cwd=ROOT)
    (samples,) = folder.rglob(f"samples_{TASK}_*.jsonl")
    return [json.loads(line) for line in samples.read_text().splitlines()]


def over_http(server: Server, folder: Path) -> str:
    """The result as text; raises AssertionError where harness and reference differ."""
    write_task(folder)
    model = {
        "model": server.name,
        "base_url": f"{server.url}/v1/completions",
        "tokenizer_backend": "remote",
        "tokenized_requests": True,
        "num_concurrent": 4,
        "max_length": 512,
    }
    return compared(run_harness(folder, [str(environment("lm-eval") / "lm_eval")], "local-completions", model))


def by_transformers(server: Server, folder: Path) -> str:
    """As above, by the harness's own `hf` model; only the import makes transformers know a Tokenformer."""
    write_task(folder)
    program = "import model_impl.huggingface; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
    model = {"pretrained": DEMO, "dtype": "float32"}
    return compared(run_harness(folder, [str(environment("lm-eval") / "python"), "-c", program], "hf", model))


def compared(samples: list[dict[str, Any]]) -> str:
    assert len(samples) == FACTS
    model = load_reference(DEMO)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    differences, accuracy = [], 0
    for sample in samples:
        found = [float(response[0]) for response in sample["filtered_resps"]]
        asked = [(argument["arg_0"], argument["arg_1"]) for argument in sample["arguments"].values()]
        assert len(found) == len(asked) == CHOICES
        for (context, continuation), value in zip(asked, found, strict=True):
            ids = tokenizer.encode(context + continuation).ids
            start = len(tokenizer.encode(context).ids)
            logprobs = model(torch.tensor([ids]))[0].log_softmax(-1)
            expected = sum(logprobs[i - 1, ids[i]].item() for i in range(start, len(ids)))
            differences.append(abs(value - expected))
        accuracy += sample["acc"]
    assert max(differences) < TOLERANCE, f"a log-likelihood differs by {max(differences)}"
    share = accuracy / len(samples)
    return f"{len(differences)} log-likelihoods, largest difference {max(differences):.1e}, accuracy {share:.2f}"
