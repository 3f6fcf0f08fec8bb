"""One server for all tests of this folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from model_impl.checkpoint.delta import split
from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.reference.model import ReferenceTokenformer
from server.uncertainty.calibration import load_calibration
from tests.growth.served import Grown
from tests.support import calibrated
from tests.support.servers import command_line, serving, user_environment


def stop_string(model: ReferenceTokenformer) -> str:
    """The fourth word of the answer to the chat w1 w2."""
    return f" w{calibrated.greedy(model, 1, [0, 1, 2, 0], 5)[3]}"


@pytest.fixture(scope="package")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    """Stages base and grown-1 of one checkpoint, and grown-2 as the delta `extra` on top of them.

    Stage base is calibrated, and so is `extra`, with the coefficients of stage base. The file beside the weights for
    the last stage belongs to other weights.
    """
    root = tmp_path_factory.mktemp("growth")
    two = calibrated.checkpoint(root / "two")
    three = calibrated.checkpoint(root / "three", 3)
    split(root / "three", root / "deltas" / "extra")
    calibrated.checkpoint(root / "foreign", 3, base_seed=7)
    split(root / "foreign", root / "deltas" / "foreign")
    references = {"m": (two, 1), "m:base": (two, 0), "extra": (three, 2), "late": (three, 2), "swapped": (three, 2)}
    generation = root / "two" / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"stop_strings": [stop_string(two)]}))
    data = root / "labels.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in calibrated.labels(two, 0, 120)))
    command = command_line("calibrate", root / "two", "--data", data, "--stage", "base", "--abstain", "0.05")
    run = subprocess.run(command, capture_output=True, text=True, env=user_environment(), timeout=300)
    assert run.returncode == 0, run.stderr
    calibration = load_calibration(root / "two" / "calibration-base.json")
    of_extra = calibration.to_dict() | {"stage": "grown-2", "checkpoint": fingerprint(root / "three")}
    (root / "deltas" / "extra" / "calibration-grown-2.json").write_text(json.dumps(of_extra))
    other = calibration.to_dict() | {"stage": "grown-1", "checkpoint": "0" * 64}
    (root / "two" / "calibration.json").write_text(json.dumps(other))
    (root / "two" / "calibration-broken.json").write_text("{")
    flags = ["--served-model-name", "m", "--growth", f"extra={root / 'deltas' / 'extra'}"]
    flags += ["--growth-root", root / "deltas", "--kv-cache-memory-bytes", 64 << 20, "--trace"]
    with serving(root / "two", root / "log", flags) as server:
        server.wait_until_ready()
        of_delta = load_calibration(root / "deltas" / "extra" / "calibration-grown-2.json")
        yield Grown(server, root, references, calibration, of_delta, run.stdout)
