"""The cost of epistemic uncertainty and growth in the engine: steps with a report against steps with statistics alone.

    python -m loadtest.closed_form [--rounds 15]

Both sides run in one process on the same batches, in turns. The ratio is that of output tok/s in the same round.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from loadtest import machine
from loadtest.in_process import generate, start, take_openmp
from loadtest.report import provenance, write
from loadtest.shapes import SHAPES
from model_impl.wire import REPORT_ARG
from server.calibrate.markdown import table
from tests.support.demo_server import DEMO

SUBJECTS = {
    "150M, float32": (lambda: SHAPES["150M"].checkpoint(), "float32"),
    "150M, bfloat16": (lambda: SHAPES["150M"].checkpoint(), "bfloat16"),
    "demo, two stages": (lambda: DEMO, "float32"),
}
BATCHES, PROMPT_TOKENS, NEW_TOKENS = (1, 16), 32, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=machine.results() / "closed_form.json")
    arguments = parser.parse_args()
    take_openmp()
    rows = [row for name in SUBJECTS for row in measure(name, arguments.rounds)]
    command = f"python -m loadtest.closed_form --rounds {arguments.rounds}"
    figures = {"rows": rows, "command": command, "machine": machine.describe()}
    text = "\n".join([__doc__.splitlines()[0], "", markdown(rows), *provenance(figures)]) + "\n"
    write(arguments.out, figures, text)
    print(text)


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    """The figures of one subject, by batch size; the first round warms up."""
    checkpoint, dtype = SUBJECTS[name]
    llm = start(checkpoint(), dtype=dtype, max_model_len=256)
    found = []
    for batch in BATCHES:
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for number in range(rounds + 1):
            for reported in (number % 2 == 0, number % 2 == 1):
                report = {REPORT_ARG: True} if reported else {}
                taken = generate(llm, batch, PROMPT_TOKENS, NEW_TOKENS, logprobs=0, **report)
                if number:
                    seconds[reported].append(taken)
        ratios = [without / with_it for without, with_it in zip(seconds[False], seconds[True], strict=True)]
        step = 1000 * statistics.median(seconds[False]) / NEW_TOKENS
        row = {"subject": name, "batch": batch, "step_ms": round(step, 3), "ratio": round(statistics.median(ratios), 4)}
        found.append(row | {"ratios": sorted(round(ratio, 3) for ratio in ratios)})
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    columns = ["subject", "rows", "ms per token without", "output tok/s with, of without", "all rounds"]
    return table(
        columns,
        [
            [
                row["subject"],
                row["batch"],
                row["step_ms"],
                f"{row['ratio']:.3f}",
                f"{row['ratios'][0]} to {row['ratios'][-1]}",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
