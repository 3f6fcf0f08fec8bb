"""Tensor parallel 2 and pipeline parallel 2 on CPU compute what one process computes."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_impl.config import TokenformerConfig
from model_impl.reference.ensemble import ensemble_uncertainty
from model_impl.reference.model import ReferenceTokenformer
from tests.conformance.models import random_prompts, random_weights, variant_config
from tests.conformance.rank import ANSWER_TOKENS, ANSWERS, MEMBERS, SCORES, score
from tests.support.engines import assert_exact_statistics, engine, saved_model
from tests.support.exact import exact_statistics
from tests.support.golden_cases import CASES, PROMPT_TOKENS, TOLERANCE, load_case
from tests.support.ports import free_ports
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import assert_statistics_within, assert_within, ensemble_tolerance

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
UNEVEN = ["untied head, affine norms, full rotary", "grown in groups, softmax"]
"""Their token counts and their vocabulary of 99 do not divide by 2.
tests/unit/model_impl/reference/test_row_operation.py has the others."""


def prepare(directory: Path, config: TokenformerConfig, weights: dict[str, torch.Tensor], prompts: object) -> None:
    directory.mkdir()
    saved_model(directory / "checkpoint", config, weights)
    (directory / "prompts.json").write_text(json.dumps(prompts))


def prepare_golden(directory: Path, name: str) -> None:
    case = load_case(name)
    prepare(directory, case.config, case.weights, case.io["input_ids"].tolist())


def prepare_variant(directory: Path, name: str) -> None:
    config = variant_config(name)
    prepare(directory, config, random_weights(config), random_prompts(config))


def run_ranks(size: int, directories: list[Path]) -> None:
    """All ranks to the end; when one fails, its output is the message and the others are ended."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "WORLD_SIZE": str(size),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    models = [f"{port}={directory}" for port, directory in zip(free_ports(len(directories)), directories, strict=True)]
    command = [sys.executable, "-m", "tests.conformance.rank", str(size), *models]
    environments = [os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    with ExitStack() as stack, ThreadPoolExecutor(size) as pool:
        ranks = []
        for environment in environments:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            stack.callback(process.kill)
            ranks.append(process)
        outputs = {pool.submit(process.communicate, timeout=300): process for process in ranks}
        for finished in as_completed(outputs):
            output, _ = finished.result()
            if outputs[finished].returncode:
                stack.close()
                pytest.fail(output[-5000:], pytrace=False)


@pytest.fixture(scope="module")
def tensor_parallel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory per golden case and per uneven variant (numbered), scored by two ranks."""
    root = tmp_path_factory.mktemp("ranks")
    for name in CASES:
        prepare_golden(root / name, name)
    for number, name in enumerate(UNEVEN):
        prepare_variant(root / str(number), name)
    run_ranks(2, sorted(root.iterdir()))
    return root


def assert_golden(directory: Path, name: str) -> None:
    case = load_case(name)
    golden = case.io["logits"][..., : case.config.vocab_size]
    found = load_file(directory / SCORES)
    torch.testing.assert_close(found["logits"], golden, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found["statistics"], exact_statistics(golden), atol=TOLERANCE, rtol=0)
    assert_exact_statistics(found["statistics"], found["logits"])
    model = ReferenceTokenformer(case.config)
    model.load_state_dict(case.weights)
    members = ensemble_uncertainty(model, case.io["input_ids"][:1], PROMPT_TOKENS, MEMBERS)[0]
    torch.testing.assert_close(found["ensemble"], members, atol=TOLERANCE, rtol=0)
    assert json.loads((directory / ANSWERS).read_text()) == case.io["greedy_ids"][:, PROMPT_TOKENS:].tolist()


@pytest.mark.parametrize("name", CASES)
def test_golden_cases_on_two_ranks(tensor_parallel: Path, name: str) -> None:
    assert_golden(tensor_parallel / name, name)


@pytest.mark.parametrize("name", UNEVEN)
def test_token_counts_that_do_not_divide(tensor_parallel: Path, name: str) -> None:
    directory, config = tensor_parallel / str(UNEVEN.index(name)), variant_config(name)
    model = ReferenceTokenformer(config).requires_grad_(False)
    model.load_state_dict(random_weights(config))
    prompts = torch.tensor(random_prompts(config))
    found, answers = load_file(directory / SCORES), torch.tensor(json.loads((directory / ANSWERS).read_text()))
    assert_within(found["logits"], model(prompts), logit_tolerance(model, prompts)[..., None])
    texts, drawn = torch.cat([prompts[:, :PROMPT_TOKENS], answers], dim=1), slice(PROMPT_TOKENS - 1, -1)
    answered, allowed = model(texts)[:, drawn], logit_tolerance(model, texts)[:, drawn]
    assert answers.shape == (len(prompts), ANSWER_TOKENS)
    assert answers.tolist() == answered.argmax(-1).tolist()
    members = ensemble_uncertainty(model, prompts[:1], PROMPT_TOKENS, MEMBERS)[0]
    of_members = ensemble_tolerance(logit_tolerance(model, prompts[:1])[0, drawn], config.vocab_size)
    assert_within(found["ensemble"], members, of_members)
    assert_statistics_within(found["answer_statistics"], exact_statistics(answered), allowed)


def test_two_pipeline_ranks_compute_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `tokenformer serve` starts it: each rank a child process with our worker in it. tests/engine/test_stages.py
    has tensor parallelism in such processes."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    prepare_golden(tmp_path / "case", CASES[0])
    with engine(tmp_path / "case" / "checkpoint", logprobs_mode="raw_logits", pipeline_parallel_size=2) as llm:
        score(llm, tmp_path / "case")
    assert_golden(tmp_path / "case", CASES[0])
