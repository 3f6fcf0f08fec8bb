"""What can be calibrated: growth stages, and growth deltas over the last one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_impl.checkpoint.delta import split
from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.one_line_error import OneLineError
from server.calibrate.variant import variant_of
from server.served.opening import open_model
from tests.support.grown import grown_checkpoint


@pytest.fixture
def two(tmp_path: Path) -> Path:
    grown_checkpoint(tmp_path / "two")
    return tmp_path / "two"


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    grown_checkpoint(tmp_path / "three", 3)
    return split(tmp_path / "three", tmp_path / "delta").path


def test_a_delta_is_base_and_delta_together(two: Path, delta: Path, tmp_path: Path) -> None:
    variant = variant_of(open_model(str(two)), growth=delta)
    assert list(variant.stages) == ["base", "grown-1", "grown-2"]
    assert variant.fingerprint == fingerprint(tmp_path / "three")
    assert (variant.directory, variant.file) == (delta, "calibration-grown-2.json")


def test_the_last_stage_has_the_plain_file_and_earlier_ones_their_name_in_it(two: Path) -> None:
    served = open_model(str(two))
    last, first = variant_of(served), variant_of(served, "base")
    assert (last.stages[-1], last.file, last.directory) == ("grown-1", "calibration.json", two)
    assert (list(first.stages), first.file, first.directory) == (["base"], "calibration-base.json", two)
    assert (last.fingerprint, first.fingerprint) == (fingerprint(two), fingerprint(two, 0))


def test_the_name_of_a_stage_leads_out_of_no_directory(tmp_path: Path) -> None:
    grown_checkpoint(tmp_path / "two")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    config["growth_stages"][0]["name"] = "../../elsewhere"
    (tmp_path / "two" / "config.json").write_text(json.dumps(config))
    assert "/" not in variant_of(open_model(str(tmp_path / "two")), "../../elsewhere").file


def test_a_delta_that_does_not_fit_is_one_line(two: Path, delta: Path, tmp_path: Path) -> None:
    grown_checkpoint(tmp_path / "other", base_seed=7)
    other, served = open_model(str(tmp_path / "other")), open_model(str(two))
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (llama / "model.safetensors").touch()
    for model, stage, growth, message in (
        (other, None, delta, f"--growth: {delta}: grew on another base: fingerprint "),
        (served, None, two, f"--growth: {two / 'growth.json'}: "),
        (served, None, tmp_path / "nowhere", f"--growth: {tmp_path / 'nowhere'}: no such growth delta directory"),
        (served, "base", delta, "--growth: a delta grew on the last stage; leave out --stage"),
        (open_model(str(llama)), None, delta, "--growth: Growth deltas add parameter tokens, which only a Tokenformer"),
    ):
        with pytest.raises(OneLineError) as error:
            variant_of(model, stage, growth)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)
