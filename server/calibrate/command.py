"""`tokenformer calibrate`: fit the risk of a wrong answer on labelled answers, and measure how good it is."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model_impl.checkpoint.writing import as_json, replace_file
from model_impl.reference.ensemble import MAX_MEMBERS
from model_impl.texts import TextTokenizer
from server.calibrate.figures import (
    ORDERING,
    Indexes,
    Values,
    auroc,
    compared,
    conformal_threshold,
    ece,
    ranked,
    summary,
)
from server.calibrate.fitting import Answers, check_both_kinds, fit, probe_of, risks_of, split
from server.calibrate.labels import Label, LabelFile
from server.calibrate.plots import reliability_plot, risk_coverage_plot
from server.calibrate.report import COVERAGE_PLOT, RELIABILITY_PLOT, report
from server.calibrate.tokenised_label import tokenised_labels
from server.calibrate.transfer import transfer
from server.calibrate.variant import variant_of
from server.served.model import ONLY_TOKENFORMERS
from server.served.opening import open_model
from server.served.tokenformer import TokenformerCheckpoint
from server.uncertainty.calibration import (
    METHODS,
    Abstention,
    Calibration,
    CalibrationError,
    Ensemble,
    Method,
)
from server.uncertainty.features import GROUPS
from server.uncertainty.reason import Form, Population, Unit

if TYPE_CHECKING:  # needs vLLM
    from server.calibrate.scoring import ScoredLabel

BASELINES = {"max_entropy": 1, "mean_entropy": 1, "min_logprob": -1}
"""Single statistics that a risk has to beat, with the sign that makes them rise with doubt."""

PAIR = ("max_entropy", "min_logprob")
"""Entropy and max-probability: the features of the smallest probe."""


def calibrate(
    model: str,
    data: LabelFile,
    method: Method,
    stage: str | None,
    abstain: float | None,
    out: Path | None,
    members: int | None = None,
    growth: Path | None = None,
) -> tuple[Calibration, Path]:
    """Score the labelled answers, fit, and write the calibration and its report; returns it and its file.

    `stage` None is the last; `growth` is the directory of a delta over it. `out` None is the directory of the model or
    delta, where `serve` finds it. With `members`, an ensemble of that size also scores the answers. Raises
    CalibrationError or LinesError for unsuitable labels, before the engine starts unless that depends on the model's
    answers. Raises VariantError for a stage or delta that cannot be served.
    """
    check_options(method, abstain, members)
    served = open_model(model)
    variant = variant_of(served, stage, growth)
    if (directory := out or variant.directory) is None:
        raise CalibrationError(f"--out: {model} lies on the Hub, so name a directory to write to")
    if members and not served.capabilities.ensemble:
        raise CalibrationError(f"--ensemble: {ONLY_TOKENFORMERS['ensemble']}")
    check_labels(data.labels, abstain)
    tokenizer = TextTokenizer(served)
    limit = min(served.longest, tokenizer.tokenizer.model_max_length)
    labels = tokenised_labels(data, tokenizer, limit)
    file = directory / variant.file
    file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK):
        raise CalibrationError(f"--out: {file.parent} cannot be written to")
    from server.calibrate.scoring import MAX_ANSWER_TOKENS, score_labels

    longest = max(len(own.prompt) + len(own.answer) + min(own.room, MAX_ANSWER_TOKENS) for own in labels)
    scored = score_labels(variant, labels, longest, members)
    answers = answers_of(data, scored)
    calibration = judged(answers, method, variant.fingerprint, variant.stages[-1], abstain)
    ensemble: Ensemble | None = None
    if isinstance(served, TokenformerCheckpoint) and members and calibration.needs & set(GROUPS["ensemble"]):
        config = served.config
        projections = config.ensemble_projections or []
        ensemble = Ensemble(members=members, rate=config.ensemble_rate, projections=projections)
    calibration = replace(calibration, population=population_of(data.labels, scored), ensemble=ensemble)
    calibration = replace(calibration, data={"sha256": data.sha256, **calibration.data})
    replace_file(file, as_json(calibration.to_dict()))
    replace_file(file.with_suffix(".md"), report(calibration, file.stem).encode())
    replace_file(file.with_name(RELIABILITY_PLOT.format(file.stem)), reliability_plot(calibration.figures))
    replace_file(file.with_name(COVERAGE_PLOT.format(file.stem)), risk_coverage_plot(calibration.figures))
    return calibration, file


def check_options(method: Method, abstain: float | None, members: int | None) -> None:
    if method not in METHODS:
        raise CalibrationError(f"--method: {method!r} is unknown; known are {', '.join(METHODS)}")
    if abstain is not None and not 0 < abstain < 1:
        raise CalibrationError(f"--abstain: {abstain:g} is no error rate between 0 and 1")
    if members is not None and not (method == "probe" and 2 <= members <= MAX_MEMBERS):
        raise CalibrationError(f"--ensemble: a number from 2 to {MAX_MEMBERS}, and only --method probe reads it")


def check_labels(labels: Sequence[Label], abstain: float | None) -> None:
    """Raises CalibrationError for labels that are insufficient whatever the model answers."""
    known = [None if label.answer is None else label.is_correct(label.answer) for label in labels]
    right, wrong = (np.array([correct is not other for correct in known]) for other in (False, True))
    clusters = numbered([label.cluster for label in labels])
    if clusters.max() == 0:
        raise CalibrationError(
            "--data: all labels are of one group, or of one prompt; they are divided by these into those that are "
            "fitted on and those that are held out, so there must be several"
        )
    fit_rows, held_rows = split(clusters)
    for part, rows in (("fitted on", fit_rows), ("held out", held_rows)):
        check_both_kinds(part, right[rows], wrong[rows], clusters[rows])
    if abstain is not None and 1 / (len(held_rows) + 1) > abstain:
        raise CalibrationError(
            f"--abstain: {abstain:g} cannot be promised by {len(held_rows)} held-out answers; it takes "
            f"{math.ceil(1 / abstain) - 1} at least"
        )


def answers_of(data: LabelFile, scored: Sequence[ScoredLabel]) -> Answers:
    rows = []
    for label, found in zip(data.labels, scored, strict=True):
        features = found.score.features(found.further)
        if features is None:
            raise data.error(label, "answer: the model gives no finite statistics for it")
        rows.append(features)
    clusters = numbered([label.cluster for label in data.labels])
    topics = [label.topic for label in data.labels]
    return Answers(rows, np.array([not found.correct for found in scored]), clusters, topics)


def population_of(labels: Sequence[Label], scored: Sequence[ScoredLabel]) -> Population:
    """The kinds of answers among the labels."""
    forms = Counter[Form]("chat" if label.is_chat else "completion" for label in labels)
    units = Counter[Unit]("answer" if label.sentence is None else "sentence" for label in labels)
    ends = Counter(found.finish_reason for found in scored)
    return {"forms": dict(forms), "finish_reasons": dict(ends), "units": dict(units)}


def numbered(clusters: Sequence[str]) -> Indexes:
    """Int64 [n]: the clusters as numbers from 0."""
    numbers = {cluster: number for number, cluster in enumerate(sorted(set(clusters)))}
    return np.array([numbers[cluster] for cluster in clusters])


def judged(answers: Answers, method: Method, checkpoint: str, stage: str, abstain: float | None) -> Calibration:
    """The calibration fitted on half of the answers, with its figures on the other half."""
    fit_rows, held_rows = split(answers.clusters)
    fitted, held = answers[fit_rows], answers[held_rows]
    for name, part in (("fitted on", fitted), ("held out", held)):
        check_both_kinds(name, ~part.wrong, part.wrong, part.clusters)

    def fit_to(name: Method, part: Answers) -> Calibration:
        return Calibration(name, checkpoint, stage, **fit(name, part))

    found = {name: fit_to(name, fitted) for name in METHODS}
    transferred = transfer(method, fit_to, found, fitted, held)
    calibration = found.pop(method)
    measured = figures(calibration, found, held, BASELINES | best_signal(fitted))
    if transferred:
        measured["transfer"] = transferred
    if method == "probe":
        measured["groups"] = what_groups_add(checkpoint, stage, fitted, held)
    counts = {"labels": len(answers.wrong), "fitted_on": len(fit_rows), "held_out": len(held_rows)}
    return replace(
        calibration,
        abstain=threshold(calibration, held, abstain),
        data={**counts, "wrong": int(answers.wrong.sum())},
        figures=measured,
    )


def threshold(calibration: Calibration, held: Answers, error_rate: float | None) -> Abstention | None:
    if error_rate is None:
        return None
    above = conformal_threshold(held.wrong, risks_of(calibration, held), error_rate)
    if above is None:
        raise CalibrationError(
            f"--abstain: {error_rate:g} cannot be promised: even among the surest of the {len(held.wrong)} held-out "
            "answers too many are wrong, or there are too few of them"
        )
    return {"error_rate": error_rate, "above": above}


def best_signal(fitted: Answers) -> dict[str, int]:
    """The single feature that best orders these answers, with the sign that makes it rise with doubt."""
    names = [name for group in fitted.groups for name in GROUPS[group]]
    found = {name: auroc(ranked(fitted.wrong, fitted.column(name))) for name in names}
    best = max(found, key=lambda name: abs(found[name] - 0.5))
    return {best: 1 if found[best] > 0.5 else -1}


def figures(
    calibration: Calibration,
    others: Mapping[Method, Calibration],
    held: Answers,
    signals: Mapping[str, int] = BASELINES,
) -> dict[str, Any]:
    """Figures of the risk, of single signals, with their signs, and of the other methods; `added` is the risk's
    advantage over each."""
    risks, wrong, clusters = risks_of(calibration, held), held.wrong, held.clusters
    baselines = {name: sign * held.column(name) for name, sign in signals.items()}
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
    """The gain of each group of features over `pair`, a probe of entropy and max-probability only."""

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
