"""`tokenformer calibrate`: learn from labelled answers how likely an answer is wrong, and measure how well it works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model_impl.checkpoint import load_config
from model_impl.checkpoint_writer import as_json, replace_file
from model_impl.config import TokenformerConfig
from model_impl.ensemble import MAX_MEMBERS
from model_impl.fingerprint import fingerprint
from server.calibration import METHODS, Calibration, CalibrationError, Method, calibration_file
from server.features import GROUPS
from server.figures import ORDERING, Values, compared, conformal_threshold, ece, ranked, summary
from server.fitting import FEWEST, Answers, check_both_kinds, fit, probe_of, risks_of, split
from server.labels import Label, read_labels
from server.plots import reliability_plot, risk_coverage_plot
from server.report import COVERAGE_PLOT, RELIABILITY_PLOT, report

if TYPE_CHECKING:  # needs vLLM
    from server.offline import ScoredLabel

BASELINES = {"max_entropy": 1, "mean_entropy": 1, "min_logprob": -1}
"""The single statistics that a risk has to beat, and the sign with which they grow with doubt."""

PAIR = ("max_entropy", "min_logprob")
"""Entropy and max-probability: what a probe has without the rest."""


def calibrate(
    checkpoint: Path,
    data: Path,
    method: Method,
    stage: str | None,
    abstain: float | None,
    out: Path | None,
    members: int | None = None,
    internals: bool = False,
) -> tuple[Calibration, Path]:
    """Score the labelled answers in `data`, fit, and write the calibration and its report; returns it and its file.

    `stage` None is the last. `out` None is the checkpoint directory, where `serve` finds it. With `members`, an
    ensemble of so many scores the answers, too; with `internals`, the engine reports theirs. Raises CalibrationError
    for labels that do not do, before the engine starts where that can be told.
    """
    if method not in METHODS:
        raise CalibrationError(f"--method: {method!r} is unknown; known are {', '.join(METHODS)}")
    if abstain is not None and not 0 < abstain < 1:
        raise CalibrationError(f"--abstain: {abstain:g} is no error rate between 0 and 1")
    if members is not None and not (method == "probe" and 2 <= members <= MAX_MEMBERS):
        raise CalibrationError(f"--ensemble: a number from 2 to {MAX_MEMBERS}, and only --method probe reads it")
    if internals and method != "probe":
        raise CalibrationError("--internals: only --method probe reads them")
    config = load_config(checkpoint)
    index = stage_index(config, stage)
    if not (checkpoint / "tokenizer.json").is_file():
        raise CalibrationError(f"{checkpoint}: has no tokenizer, which labels need")
    labels, data_hash = read_labels(data)
    if len(labels) < 4 * FEWEST:
        raise CalibrationError(f"--data: {len(labels)} labels are too few; {4 * FEWEST} is the least")
    from server.offline import score_labels

    scored = score_labels(checkpoint, config, index, labels, members, internals)
    answers = answers_of(labels, scored)
    fit_rows, held_rows = split(answers.clusters)
    fitted, held = answers[fit_rows], answers[held_rows]
    for name, part in (("fitted on", fitted), ("held out", held)):
        check_both_kinds(name, part)
    identity = fingerprint(checkpoint, index), config.stages[index].name
    found = {name: Calibration(name, *identity, **fit(name, fitted)) for name in METHODS}
    calibration = found.pop(method)
    read = calibration.needs & set(GROUPS["ensemble"])
    masks = {"rate": config.ensemble_rate, "projections": config.ensemble_projections}
    ensemble = {"members": members, **masks} if members and read else None
    counts = {"labels": len(labels), "fitted_on": len(fit_rows), "held_out": len(held_rows)}
    measured = figures(calibration, found, held)
    if method == "probe":
        measured["groups"] = what_groups_add(*identity, fitted, held)
    calibration = replace(
        calibration,
        ensemble=ensemble,
        abstain=threshold(calibration, held, abstain),
        data={"sha256": data_hash, **counts, "wrong": int(answers.wrong.sum())},
        figures=measured,
    )
    file = (out or checkpoint) / calibration_file(stage if index != len(config.stages) - 1 else None)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, as_json(calibration.to_dict()))
    replace_file(file.with_suffix(".md"), report(calibration, file.stem).encode())
    replace_file(file.with_name(RELIABILITY_PLOT.format(file.stem)), reliability_plot(calibration.figures))
    replace_file(file.with_name(COVERAGE_PLOT.format(file.stem)), risk_coverage_plot(calibration.figures))
    return calibration, file


def answers_of(labels: Sequence[Label], scored: Sequence[ScoredLabel]) -> Answers:
    rows = []
    for label, found in zip(labels, scored, strict=True):
        features = found.score.features(found.further)
        if features is None:
            raise CalibrationError(f"--data: line {label.line}: the model gives no finite statistics for this answer")
        rows.append(features)
    _, clusters = np.unique([label.cluster for label in labels], return_inverse=True)
    return Answers(rows, np.array([not found.correct for found in scored]), clusters)


def stage_index(config: TokenformerConfig, stage: str | None) -> int:
    """Index of the growth stage of this name (None: the last); raises CalibrationError if it cannot be served."""
    names = [config.stages[i].name for i in config.servable_stages]
    if stage is not None and stage not in names:
        raise CalibrationError(f"--stage: no stage {stage!r} to serve; there are {', '.join(names)}")
    return config.servable_stages[-1 if stage is None else names.index(stage)]


def threshold(calibration: Calibration, held: Answers, error_rate: float | None) -> dict[str, float] | None:
    if error_rate is None:
        return None
    above = conformal_threshold(held.wrong, risks_of(calibration, held), error_rate)
    if above is None:
        raise CalibrationError(
            f"--abstain: {error_rate:g} cannot be promised: even among the surest of the {len(held.wrong)} held-out "
            "answers too many are wrong, or there are too few of them"
        )
    return {"error_rate": error_rate, "above": above}


def figures(calibration: Calibration, others: Mapping[Method, Calibration], held: Answers) -> dict[str, Any]:
    """Of the risk; of the single statistics and the other methods; and, as `added`, by how much it is better."""
    risks, wrong, clusters = risks_of(calibration, held), held.wrong, held.clusters
    baselines = {name: sign * held.column(name) for name, sign in BASELINES.items()}
    theirs: dict[str, Values] = {name: risks_of(other, held) for name, other in others.items()}
    methods = compared(wrong, risks, theirs, clusters)
    for name, values in theirs.items():
        methods[name]["ece"] = ece(ranked(wrong, values))
    return {
        **summary(wrong, risks, clusters),
        "baselines": compared(wrong, risks, baselines, clusters),
        "methods": methods,
    }


def what_groups_add(checkpoint: str, stage: str, fitted: Answers, held: Answers) -> dict[str, Any]:
    """What each group of features adds to a probe that has entropy and max-probability only, as `pair`."""

    def risks(names: Sequence[str]) -> Values:
        return risks_of(Calibration("probe", checkpoint, stage, **probe_of(fitted, names)), held)

    pair = {"pair": risks(PAIR)}
    added = {
        group: compared(held.wrong, risks(list(dict.fromkeys([*PAIR, *GROUPS[group]]))), pair, held.clusters)["pair"]
        for group in fitted.groups
    }
    alone = next(iter(added.values()))
    return {"pair": {name: alone[name] for name in ORDERING}} | {
        group: found["added"] for group, found in added.items()
    }
