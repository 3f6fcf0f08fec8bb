"""Which calibrations belong to the stages of a model, and to the deltas over it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model_impl.checkpoint.delta import GrowthDelta, split
from model_impl.checkpoint.fingerprint import fingerprint
from server.engine.fitted import calibration_of_delta, calibrations_of, warn_of_pipeline
from server.served.model import ServedModel
from server.served.opening import open_model
from server.uncertainty.calibration import Calibration
from tests.support.grown import grown_checkpoint


@pytest.fixture
def served(tmp_path: Path) -> ServedModel:
    grown_checkpoint(tmp_path / "base", stages=1)
    return open_model(str(tmp_path / "base"))


@pytest.fixture
def delta(tmp_path: Path) -> GrowthDelta:
    return delta_of(tmp_path, "grown")


def delta_of(root: Path, name: str, **options: int) -> GrowthDelta:
    grown_checkpoint(root / name, stages=2, **options)
    return split(root / name, root / f"{name}-delta")


def calibration(checkpoint: Path, stage: str, intercept: float = 0.0) -> Calibration:
    """One that was made for the last stage of a checkpoint."""
    return Calibration(
        "logistic", fingerprint(checkpoint), stage, ["max_entropy"], [1.0], intercept, lowest=[0.0], highest=[9.0]
    )


def write(directory: Path, made: Calibration, name: str = "calibration-grown-1.json") -> Path:
    (directory / name).write_text(json.dumps(made.to_dict()))
    return directory / name


def test_the_calibration_beside_a_delta_is_that_of_the_delta(
    served: ServedModel, delta: GrowthDelta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = calibration(tmp_path / "grown", "grown-1")
    file = write(delta.path, made)
    found = calibration_of_delta("news", delta, served, [])
    assert found is not None
    assert found.name == made.name
    assert capsys.readouterr().err == f"tokenformer: delta news is calibrated by {file}\n"


@pytest.mark.parametrize("options", [{"growth_seed": 5}, {"base_seed": 5}], ids=["delta", "base"])
def test_a_calibration_of_another_base_or_delta_is_refused_in_one_line(
    options: dict[str, int],
    served: ServedModel,
    delta: GrowthDelta,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = delta_of(tmp_path, "other", **options)
    made = calibration(tmp_path / "other", other.name)
    file = write(delta.path, made)
    assert calibration_of_delta("news", delta, served, [made]) is None
    message = f"tokenformer: warning: {file} was made for another base or delta; it is not used\n"
    assert capsys.readouterr().err == message


def test_a_given_calibration_wins_over_the_one_beside_the_delta(
    served: ServedModel, delta: GrowthDelta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(delta.path, calibration(tmp_path / "grown", "grown-1"))
    given = write(tmp_path, calibration(tmp_path / "grown", "grown-1", intercept=2.0))
    known = calibrations_of(served, [given], {"news": delta})
    assert capsys.readouterr().err == ""
    assert calibration_of_delta("news", delta, served, known) is known[0]
    assert known[0].intercept == 2.0


def test_stages_and_deltas_are_told_apart(
    served: ServedModel, delta: GrowthDelta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages of a model have names that no delta over it can have, but two deltas may share one."""
    sibling = delta_of(tmp_path, "sibling", growth_seed=5)
    files = [
        write(tmp_path, calibration(tmp_path / name, stage), f"{name}.json")
        for name, stage in (("base", "base"), ("grown", "grown-1"), ("sibling", "grown-1"))
    ]
    known = calibrations_of(served, files, {"a": delta, "b": sibling})
    assert [made.stage for made in known] == ["base", "grown-1", "grown-1"]
    assert calibration_of_delta("a", delta, served, known) is known[1]
    assert calibration_of_delta("b", sibling, served, known) is known[2]
    said = capsys.readouterr().err
    calibrations_of(served, files, {"a": delta})
    assert f"{files[2]} was made for another model or stage" not in said
    assert f"{files[2]} was made for another model or stage; it is not used" in capsys.readouterr().err


def test_a_second_calibration_of_a_delta_is_not_used(
    served: ServedModel, delta: GrowthDelta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = calibration(tmp_path / "grown", "grown-1")
    write(delta.path, first, "calibration-a.json")
    second = write(delta.path, calibration(tmp_path / "grown", "grown-1", intercept=2.0), "calibration-b.json")
    found = calibration_of_delta("news", delta, served, [])
    assert found is not None
    assert found.name == first.name
    assert f"{second} is a second calibration of delta news; it is not used" in capsys.readouterr().err


def test_what_judges_nothing_in_a_pipeline_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grown_checkpoint(tmp_path / "base", stages=1)
    by_entropy = calibration(tmp_path / "base", "base")
    by_epistemic = replace(by_entropy, stage="grown-1", features=["log mean_closed_form"])
    warn_of_pipeline([by_entropy, by_epistemic])
    said = capsys.readouterr().err
    assert said.startswith("tokenformer: warning: the calibration of stage grown-1 reads epistemic uncertainty")
    assert said.count("\n") == 1
