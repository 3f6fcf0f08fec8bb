"""vLLM's V2 model runner reports what the V1 runner does: this folder's tests, in Triton's interpreter.

They run in a process of their own: vLLM decides between its runners when it is imported, by whether Triton is there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.interpreter]

ROOT = Path(__file__).resolve().parents[2]
TRITON = ROOT / ".venv-triton"

STREAMS = (
    "a_crowd_of_mixed_streams",
    "a_seed_gives_the_same_answer_however_the_prompt_is_cut",
    "prompt_tokens_have_the_statistics_of_their_positions",
)
STAGES = ("stages_and_siblings_mix_in_one_batch", "a_removed_delta_leaves_the_others_alone")
ENSEMBLES = (
    "every_variant_equals_its_reference_in_one_mixed_batch",
    "members_share_the_prompts_blocks_with_the_plain_request",
)


@pytest.mark.parametrize(
    "tests",
    [
        [f"test_alignment.py::test_{name}" for name in STREAMS],
        [f"test_stages.py::test_{name}[l2_norm_gelu]" for name in STAGES],
        [f"test_ensemble.py::test_{name}[l2_norm_gelu]" for name in ENSEMBLES],
    ],
    ids=["streams", "stages", "ensembles"],
)
def test_as_under_v1(tests: list[str]) -> None:
    if not (TRITON / "installed.txt").exists():
        pytest.skip("Triton is not installed: sh scripts/triton.sh")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(TRITON)]),
        "TRITON_INTERPRET": "1",
        "VLLM_USE_V2_MODEL_RUNNER": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.support.interpreted_runner"]
    done = subprocess.run(
        [*command, *(f"tests/engine/{test}" for test in tests)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(tests)} passed" in done.stdout
