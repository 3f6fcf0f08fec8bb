"""The tables of the report, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from evals.report.aggregate import Results, spread
from evals.study import FEW, MANY, PART_RATES, PARTS, RATES
from evals.view import EPR, LEAKAGE, WEPR
from server.calibrate.markdown import table

SCOPES = ("all", "one answer", "known people")

CERTAIN = "max probability"

HEADLINE = (
    "max probability",
    "entropy, first value token",
    "variance, mean",
    "10 samples: semantic entropy",
    "ensemble epistemic, max of value",
    "epistemic + max probability (ranks)",
    "calibrated (probe)",
    "calibrated (probe) + ensemble",
)
"""Signals that are shown seed by seed with their intervals."""

SHOWN = (
    *HEADLINE,
    "sequence probability",
    "entropy, mean",
    "entropy, max of value",
    "closed form, max of value",
    "name surprisal in the question",
    "LogTokU, first value token",
    "ensemble aleatoric, first value token",
    "calibrated (logistic)",
    "calibrated (isotonic)",
    EPR,
    WEPR,
    "hidden-state probe",
    LEAKAGE,
    "Pattention internals probe",
)
"""Signals of the longer tables, beside the probes of a task's own; the JSON files have all."""


def shown(names: Sequence[str]) -> list[str]:
    return [name for name in names if name in SHOWN or name.startswith("probe on ")]


def seeds(results: Results) -> list[list[str]]:
    rows = []
    for seed, figures in results.seeds.items():
        trained = figures["trained"]
        scored = ["yes" if model in figures["models"] else "no" for model in ("grown", "twin")]
        rows.append([str(seed), trained["world"], trained["epochs"], *scored])
    return rows


def cell_tables(results: Results) -> list[str]:
    parts = []
    for model, title in (("base", "Tokenformer, base stage"), ("grown", "Tokenformer, grown"), ("twin", "Twin")):
        rows: dict[tuple[str, str, bool], list[dict[str, float]]] = {}
        for figures in results.seeds.values():
            for cell in figures["models"].get(model, {}).get("cells", []):
                rows.setdefault((cell["world"], cell["kind"], cell["rare"]), []).append(cell)
        columns = ("right", "right_asked", "right_not_asked", "right_trained_wording", "right_held_out_wording")
        lines = [
            [
                f"{world}: {kind.replace('_', ' ')}{', rare' if rare else ''}",
                str(sum(int(cell["answers"]) for cell in cells)),
                *(average(cells, column, "{:.1%}") for column in columns),
                average(cells, "entropy", "{:.3f}"),
                average(cells, "epistemic", "{:.4f}"),
            ]
            for (world, kind, rare), cells in rows.items()
        ]
        head = ["world: kind", "answers", "right", "people asked about", "not asked about", "trained wording"]
        parts += [f"### {title}", table([*head, "held-out wording", "entropy", "epistemic"], lines)]
    return parts


def average(cells: Sequence[dict[str, float]], column: str, form: str) -> str:
    found = [cell[column] for cell in cells if column in cell]
    return form.format(mean(found)) if found else "-"


def detection(results: Results, scope: str) -> list[str]:
    rows = []
    for signal in shown(results.names("base", "detection", scope, "signals")):
        path = ("detection", scope, "signals", signal)
        found = [spread(results.values("base", *path, name)) for name in ("auroc", "prr", "above_reference")]
        rows.append([signal, *found, *beside_twin(results, *path, "auroc")])
    counts = results.values("base", "detection", scope, "answers"), results.values("base", "detection", scope, "wrong")
    answers, wrong = (int(sum(values.values())) for values in counts)
    head = ["signal", "AUROC", "PRR", "AUROC above max probability", *BESIDE]
    lead = f"{answers:,} answers of {len(counts[0])} seeds (Tokenformer, base stage), {wrong:,} of them wrong."
    return [f"### {scope.capitalize()}", lead, table(head, rows)]


BESIDE = ("seeds with a twin", "twin")


def beside_twin(results: Results, *path: str) -> list[str]:
    """The Tokenformer and its twin, over the seeds that have one."""
    return [spread(results.paired.values(model, *path)) for model in ("base", "twin")]


def seed_table(results: Results, scope: str) -> str:
    rows = []
    for signal in HEADLINE:
        row = [signal]
        for figures in results.seeds.values():
            found = figures["models"]["base"]["detection"][scope]
            row.append(with_interval(found["signals"][signal]["auroc"]) if found else "-")
        rows.append(row)
    return table(["signal", *(f"seed {seed}" for seed in results.seeds)], rows)


def with_interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


NOT_ASKED = "one answer, people never asked about in training"
HELD_OUT = "one answer, held-out wordings"


def scope_table(results: Results, scopes: Sequence[str]) -> str:
    rows = []
    for signal in HEADLINE:
        found = [results.values("base", "detection", scope, "signals", signal, "auroc") for scope in scopes]
        rows.append([signal, *map(spread, found)])
    return table(["signal", *scopes], rows)


def separation(results: Results) -> list[str]:
    parts = []
    for kind, title in (("unknown", "Unknown people"), ("never_stated", "Facts never stated about known people")):
        rows = []
        for signal in shown(results.names("base", "separation", kind, "signals")):
            path = ("separation", kind, "signals", signal)
            found = [spread(results.values("base", *path, name)) for name in ("matched", "plain")]
            rows.append([signal, *found, *beside_twin(results, *path, "matched")])
        matched = results.values("base", "separation", kind, "matched")
        lead = f"Matched answers of each kind, by seed: {', '.join(f'{n:.0f}' for n in matched.values())}."
        head = ["signal", "AUROC, matched", "not matched", *BESIDE]
        parts += [f"### {title} against ambiguous facts", lead, table(head, rows)]
    return parts


def style_table(results: Results) -> str:
    rows = []
    for signal in results.names("base", "style", "signals"):
        path = ("style", "signals", signal)
        found = spread(results.values("base", *path))
        rows.append([signal.replace("_", " "), found, *beside_twin(results, *path)])
    return table(["signal", "AUROC, matched", *BESIDE], rows)


def study_table(results: Results) -> str:
    settings = [
        (results, "base", "all", "all parameter tokens"),
        (results, "base", "output, ffn", "output and ffn tokens"),
        (results.paired, "base", "output, ffn", "output and ffn tokens, seeds with a twin"),
        (results.paired, "twin", "hidden units", "twin: MLP hidden units"),
        (results.paired, "twin", "inputs", "twin: inputs of all linears"),
    ]
    rows = []
    for part, model, masked, label in settings:
        for rate in RATES:
            found = [part.values(model, "study", f"{masked}/{rate}/{m}", "matched") for m in MANY]
            if any(found):
                rows.append([label, f"{rate:.0%}", *map(spread, found)])
    return table(["masked", "rate", *(f"m = {m}" for m in MANY)], rows)


def part_table(results: Results) -> str:
    rows = []
    for masked in PARTS:
        for rate in PART_RATES:
            found = [results.values("base", "study", f"{masked}/{rate}/{m}", "matched") for m in FEW]
            sizes = [results.values("base", "study", f"{masked}/{rate}/{FEW[-1]}", f"median_{k}") for k in KINDS]
            rows.append([masked, f"{rate:.0%}", *map(spread, found), *map(spread, sizes)])
    head = ["tokens of", "rate", *(f"m = {m}" for m in FEW)]
    return table([*head, f"median, unknown (m = {FEW[-1]})", f"median, ambiguous (m = {FEW[-1]})"], rows)


KINDS = ("unknown", "ambiguous")


def value_token_table(results: Results) -> str:
    rows = []
    for model, label in (("base", "Tokenformer"), ("twin", "twin")):
        paths = [("signals", f"entropy_{place}") for place in ("first", "last", "max")]
        paths += [("median_entropy_first_wrong",), ("median_entropy_last_wrong",), ("answers",), ("wrong",)]
        found = [results.values(model, "value_tokens", *path) for path in paths]
        counts = [str(int(sum(values.values()))) for values in found[-2:]]
        rows.append([label, *(spread(values) for values in found[:-2]), *counts])
    head = ["", "first", "last", "highest", "entropy at the first, wrong", "at the last, wrong", "answers", "wrong"]
    return table(head, rows)


def calibration_table(results: Results) -> str:
    rows = []
    for scope in ("all", "one answer"):
        for risk in results.names("base", "calibration", scope):
            keys = ("ece", "ece_by_chance", "brier")
            found = [spread(results.values("base", "calibration", scope, risk, key)) for key in keys]
            rows.append([scope, risk, *found, spread(results.values("twin", "calibration", scope, risk, "ece"))])
    return table(["answers", "risk", "ECE", "by chance", "Brier", "twin: ECE"], rows)


def exclusive_table(results: Results) -> str:
    wrong = results.values("base", "exclusive", "all", "wrong")
    rows = []
    for signal in shown(results.names("base", "exclusive", "all")):
        found = [
            results.values("base", "exclusive", "all", signal, key) for key in ("caught", "only_this", "only_entropy")
        ]
        rows.append([signal, *(f"{mean(values[s] / wrong[s] for s in values):.1%}" for values in found)])
    return table(["signal", "caught", "only by this", "only by entropy"], rows)


def exposure_table(results: Results) -> str:
    levels: dict[int, list[dict[str, float]]] = {}
    for figures in results.seeds.values():
        found = figures["models"]["base"]["exposure"]
        for level in found["levels"] if found["spearman"] else []:
            levels.setdefault(level["exposure"], []).append(level)
    columns = (
        [name for name in next(iter(levels.values()))[0] if name not in ("exposure", "answers", "right")]
        if levels
        else []
    )
    rows = [
        [
            str(level),
            str(sum(int(row["answers"]) for row in found)),
            average(found, "right", "{:.1%}"),
            *(average(found, name, "{:.4f}") for name in columns),
        ]
        for level, found in sorted(levels.items())
    ]
    spearman = [spread(results.values("base", "exposure", "spearman", name)) for name in columns]
    rows.append(["Spearman", "", "", *spearman])
    head = [
        "epochs that mention the person",
        "answers",
        "right",
        *(f"{name} (as surprisal)" if name.startswith("max") else name for name in columns),
    ]
    return table(head, rows)


def provenance_table(results: Results) -> str:
    rows = []
    for signal in results.names("grown", "provenance", "signals"):
        if signal.startswith("mean log share, first value token, "):  # of one layer or projection
            continue
        found = results.values("grown", "provenance", "signals", signal)
        held = results.held_out.values("grown", "provenance", "signals", signal)
        rows.append(
            [signal, spread(found), spread(held), *(f"{found[s]:.3f}" if s in found else "-" for s in results.seeds)]
        )
    return table(["signal", "all seeds", "held-out seeds", *(f"seed {seed}" for seed in results.seeds)], rows)
