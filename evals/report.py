"""The report in Markdown, from the seeds' JSON files: every number in it is computed, none is typed in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from evals.aggregate import DEVELOPMENT, Results, spread
from evals.study import FEW, MANY, PART_RATES, PARTS, RATES
from evals.targets import targets
from evals.train import DEMO
from evals.view import LEAKAGE, NAME
from server.calibration import find_calibrations, load_calibration
from server.report import table

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


def report(results: Results, commands: str, machine: str) -> str:
    parts = [
        "# Does the score find hallucinations?",
        f"Written by `make eval`; all numbers are computed from `evals/results/seed-*.json`. {machine}",
        "## In plain language",
        summary(results),
        "## Targets",
        "Signals and settings were chosen on seeds "
        f"{names(DEVELOPMENT)} and are judged on the others, as mean ± standard deviation over those seeds. "
        "A task that has too few answers of one kind in a seed leaves that seed out.",
        table(["target", "at least", "signal", "held-out seeds", "met", "all seeds", "seed 0"], targets(results)),
        "## What was measured",
        METHOD,
        table(["seed", "world A", "base trained for", "grown", "twin"], seeds(results)),
        "## The models, by kind of question",
        "Right: exactly the sentence with a value that texts state. Entropy and epistemic uncertainty (median, nats) "
        "are those of the first value token; at a style position, those of what follows a name.",
        *cell_tables(results),
        "## Finding wrong answers",
        DETECTION,
        *(part for scope in SCOPES for part in detection(results, scope)),
        "### Seed by seed",
        "AUROC over all answers with 95 % bootstrap intervals over people; in brackets.",
        seed_table(results, "all"),
        "AUROC over facts with one answer:",
        seed_table(results, "one answer"),
        "### Without rare people",
        "The answers about rare people left out, which other seeds than 0 have: what remains is what texts mention in "
        "every epoch or never.",
        scope_table(results, ("all, without rare people", "one answer, without rare people")),
        "### People and wordings that chats never used",
        scope_table(results, ("one answer", NOT_ASKED, HELD_OUT)),
        "## Not knowing against knowing several answers",
        SEPARATION,
        *separation(results),
        "### Style positions",
        STYLE,
        style_table(results),
        "## The ensemble's settings, and the control",
        STUDY,
        "![rates and members](study.svg)",
        study_table(results),
        part_table(results),
        "## First and later value tokens",
        "Facts with one answer whose value has at least two tokens (dishes, cities of two words): AUROC for right and "
        "wrong of the entropy at the value's first and last token, and the median entropy of wrong answers there.",
        value_token_table(results),
        "## Calibration",
        CALIBRATION,
        "![reliability](calibration.svg)",
        calibration_table(results),
        "With two thousand answers, the bins' chance alone is as large as the target. The calibrations that ship with "
        "the demo checkpoint are fitted on more answers, and measured on more, by `tokenformer calibrate`:",
        shipped_table(),
        "## Exclusive catches",
        EXCLUSIVE,
        exclusive_table(results),
        "## How often texts mention a person",
        EXPOSURE,
        "![exposure](exposure.svg)",
        exposure_table(results),
        "## Which stage answered",
        PROVENANCE,
        provenance_table(results),
        "## Null results, and what this does not show",
        nulls(results),
        "## Commands",
        commands,
    ]
    return "\n\n".join(parts) + "\n"


METHOD = """\
Every seed is a world of made-up people of its own and models trained on it from nothing: a Tokenformer (1.25 M
parameters), which is then grown on a second world B, and its *twin*, an ordinary transformer of the same parameter
count, depth, width, vocabulary, data and recipe. Seed 0 is the committed demo checkpoint. In the other seeds a quarter
of the known people are *rare*: texts mention them in 1, 2, 4, 8 or 16 epochs only. Names of known, rare and unknown
people use the same name parts equally often.

All answers are greedy, scored by the reference model, and right if they equal the chat's sentence with a value that
texts state for the fact (of an ambiguous fact: any of its values). Half of the questions use wordings that training
never used. Everything fitted predicts only people of whom the fit saw no answer (five folds). Intervals are 95 %
bootstrap intervals over people, the same resamples for every signal. Signals "of value" know where the value stands in
the sentence, and so does "+ ensemble", which reads the ensemble there; a server, which does not, reads the mean and the
highest over all tokens of the answer (measured for the demo in demo/checkpoint/calibration.md).

The ensemble has 16 members and masks 3 % of the parameter tokens of the output projections and the feed-forwards, as
served by default, which the study of settings on seed 0 led to; the twin's drops 3 % of the MLPs' hidden units by the
same hash."""

DETECTION = """\
AUROC: how often a wrong answer gets the higher value than a right one; 0.5 is chance. PRR: 1 perfect, 0 random. Three
sets of answers: *all* four kinds of facts, where an ambiguous fact's answer is right although the model is rightly
torn; *one answer*, without ambiguous facts; and *known people*, facts that texts state, where errors come from
rarity."""

EXCLUSIVE = """\
Each signal flags the 20 % of the answers that it is least sure of. Of all wrong answers, the share that it flags; that
it flags and entropy (highest of the value) does not; and that entropy flags and it does not. All kinds of facts, mean
over seeds."""

SEPARATION = """\
An unknown fact and an ambiguous one can look alike: high entropy. Of answers to unknown people (or to facts never
stated about known people) and to ambiguous facts, both kinds are weighted so that their histograms of the entropy at
the first value token agree (bins of 0.1 nat); entropy itself then has AUROC 0.5. Positive is not knowing. Fitted probes
are also tested on held-out shapes: ambiguous facts with a number of values (2 to 6) that no fact of the fit has."""

STYLE = """\
After a name at the beginning of a document, what comes next is a matter of style and choice: which fact, in which of
three wordings. AUROC of unknown people's first value token against these positions, at matched entropy. The two barely
overlap in entropy, so few positions match and intervals are wide."""

STUDY = """\
AUROC at matched entropy, unknown people against ambiguous facts (120 of each), of the epistemic uncertainty at the
first value token, given the right sentence up to there. Mean ± standard deviation over seeds."""

CALIBRATION = """\
Expected calibration error in 15 bins of equal size, and Brier score, before and after. Even a perfectly calibrated risk
has an ECE above 0 in finite bins: *by chance* is what it would have on average with these very risks."""

EXPOSURE = """\
Known facts by the number of training epochs whose texts mention the person (each states the fact twice in documents
and, for people asked about, once in a chat); the signals are medians in nats, averaged over the seeds with rare people.
Spearman: rank correlation of that number with the signal."""

PROVENANCE = """\
Right answers of the grown model about known facts of world B, which only the growth stage learned, against those of
world A. AUROC of the growth stage's part in the answer. A *share* sums w² ‖v‖² over parameter tokens, as the server
does; a *log share* is the logarithm of new over old per layer and projection, averaged. *Attribution* is what the
growth stage's output and feed-forward tokens add to the logit of the value's first token, above what they add to its
ten likeliest rivals, and its share among both stages. *grown minus base* compares the answer's log-probability under
the two stages, which takes a second prefill."""


def names(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def summary(results: Results) -> str:
    def figure(signal: str, scope: str) -> str:
        return spread(results.values("base", "detection", scope, "signals", signal, "auroc"), 2)

    def apart(signal: str, kind: str = "unknown") -> str:
        return spread(results.values("base", "separation", kind, "signals", signal, "matched"), 2)

    epistemic, entropy = EPISTEMIC, "entropy, first value token"
    after = results.values("base", "calibration", "all", "calibrated (probe) + ensemble", "ece")
    before = results.values("base", "calibration", "all", "1 - probability of the answer (before)", "ece")
    chance = results.values("base", "calibration", "all", "calibrated (probe) + ensemble", "ece_by_chance")

    def stage(signal: str) -> str:
        return spread(results.values("grown", "provenance", "signals", signal), 2)

    return f"""\
Over {len(results.seeds)} seeds, {len(results.paired.seeds)} of them with a twin; AUROC unless said otherwise, as mean ±
standard deviation over seeds.

- **Is the answer wrong?** Where facts have one answer, plain probability and entropy do all the work: max probability
  {figure(CERTAIN, "one answer, without rare people")} where texts mention everybody in every epoch or never, and
  {figure(CERTAIN, "one answer")} with rare people among them, entropy {figure(entropy, "one answer")}, the ensemble's
  epistemic part {figure(epistemic, "one answer")}, a calibrated probe {figure("calibrated (probe)", "one answer")}.
- With ambiguous facts among the questions, where being torn is right, it takes more: max probability
  {figure(CERTAIN, "all")}, entropy {figure(entropy, "all")}, the ensemble {figure(epistemic, "all")}, a calibrated
  probe {figure("calibrated (probe)", "all")}, with the ensemble {figure("calibrated (probe) + ensemble", "all")}.
- **Which of the facts that it has read does it get wrong?** Rare ones, and probability tells: max probability
  {figure(CERTAIN, "known people")}.
- **Does it not know, or does it know several answers?** At equal entropy the ensemble tells {apart(epistemic)} (facts
  never stated about known people: {apart(epistemic, kind="never_stated")}); from one pass mean variance tells
  {apart("variance, mean")}, max probability {apart(CERTAIN)}.
- **Because it is a Tokenformer?** {verdict(results)}
- **Calibration** takes the expected calibration error over all answers from {spread(before)} to {spread(after)};
  chance alone makes {spread(chance)} of that with so few answers.
- **Which stage answered?** The served share tells {stage("share, answer (served)")}; what the growth stage adds to the
  value's logit, from the same pass, {stage("attribution, first value token, share")}; the answer's probability under
  both stages, for a second prefill, {stage("log p(answer): grown minus base")}."""


def verdict(results: Results) -> str:
    """What the twin says of the ensemble: the same signal from an ordinary transformer, on the same seeds."""
    paths = {
        "not knowing against knowing several answers": ("separation", "unknown", "signals", EPISTEMIC, "matched"),
        "finding wrong answers among all": ("detection", "all", "signals", EPISTEMIC, "auroc"),
    }
    compared = {
        task: found
        for task, path in paths.items()
        if all(found := [results.paired.values(model, *path) for model in ("base", "twin")])
    }
    if not compared:
        return "Not measured: no twin was scored."
    gains = [mean(base.values()) - mean(twin.values()) for base, twin in compared.values()]
    if max(gains) <= SAME:
        lead = "No: the control does as well"
    else:
        lead = "The ensemble does better than the control" if min(gains) > SAME else "In part"
    told = ";\n  ".join(f"{task} {spread(a, 2)}, twin {spread(b, 2)}" for task, (a, b) in compared.items())
    return f"{lead} (hidden units dropped in the MLP twin, same seeds):\n  {told}."


EPISTEMIC = "ensemble epistemic, max of value"
SAME = 0.02
"""AUROC within which the Tokenformer and its twin count as equally good."""


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
    for signal in results.names("base", "detection", scope, "signals"):
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
        for signal in results.names("base", "separation", kind, "signals"):
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


def shipped_table() -> str:
    """The figures of the calibrations beside the demo checkpoint, of the answers that they were not fitted on."""
    rows = []
    for file in find_calibrations(DEMO):
        calibration = load_calibration(file)
        found = [with_interval(calibration.figures[name]) for name in ("ece", "brier", "auroc", "prr")]
        rows.append([file.name, calibration.method, str(calibration.data["held_out"]), *found])
    return table(["file", "method", "held-out answers", "ECE", "Brier", "AUROC", "PRR"], rows)


def exclusive_table(results: Results) -> str:
    wrong = results.values("base", "exclusive", "all", "wrong")
    rows = []
    for signal in results.names("base", "exclusive", "all"):
        if signal in ("wrong", "flagged"):
            continue
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
        found = results.values("grown", "provenance", "signals", signal)
        held = results.held_out.values("grown", "provenance", "signals", signal)
        rows.append(
            [signal, spread(found), spread(held), *(f"{found[s]:.3f}" if s in found else "-" for s in results.seeds)]
        )
    return table(["signal", "all seeds", "held-out seeds", *(f"seed {seed}" for seed in results.seeds)], rows)


def nulls(results: Results) -> str:
    def found(signal: str, scope: str = "one answer") -> str:
        return spread(results.values("base", "detection", scope, "signals", signal, "auroc"))

    return f"""\
AUROC for right and wrong, facts with one answer.

- Text only (TF-IDF of question and answer): {found(LEAKAGE)}. All kinds of people use every name part equally often,
  so a part that was wrong more often in the fit is right more often elsewhere, and a fit to names falls below chance.
  Nothing leaks that helps.
- Hidden states, linear probe: {found("hidden-state probe")}.
- Pattention internals (score norm, kurtosis, participation ratio, positive share), linear probe:
  {found("Pattention internals probe")}. Added to the calibration's features they change its
  {found("calibrated (probe)")} to {found("calibrated (probe) + internals")}.
- LogTokU: {found("LogTokU, first value token")}, its epistemic part {found("LogTokU epistemic, first value token")}:
  the size of these models' logits carries little of what the method reads from it.
- Standardised surprisal: {found("server: standardised surprisal")}. A greedy answer surprises the less the more the
  model is torn, so for greedy answers its sign is the wrong way round.
- Ten samples cost ten generations and find less than one pass: semantic entropy
  {found("10 samples: semantic entropy")}, disagreement {found("10 samples: disagreement")}, semantic energy
  {found("10 samples: semantic energy")}, against max probability {found(CERTAIN)}.
- An unfamiliar name finds unknown people, and nothing else: name surprisal {found(NAME)} here, and at matched entropy
  {spread(results.values("base", "separation", "never_stated", "signals", NAME, "matched"))} for facts never stated
  about known people.
- All of this is one kind of synthetic world, short answers of one form, and models of 1.25 M parameters that have seen
  most facts more than a hundred times. What a large model does that has read natural text once is not shown."""
