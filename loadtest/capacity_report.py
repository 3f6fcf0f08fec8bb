"""The results of `loadtest.capacity` as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtest.report import provenance
from server.calibrate.markdown import table

CAPACITY = {
    "requests_per_second": "requests/s of a replica",
    "per_core": "requests/s of a core",
    "users_per_core": "users of a core",
    "replicas": "replicas",
    "cores": "cores",
}
"""The figures of a model's capacity, with their labels."""


def markdown(figures: Mapping[str, Any]) -> str:
    lines = [
        "The capacity of one replica, simulated from the costs of its parts, and what many users cost.",
        *("", "## Predicted and measured", "", checks(figures), ""),
        "Output tok/s of a closed loop: prompts and answers of 32 tokens, clients on the same cores.",
        "Medians of the rounds, and of the errors in the same round.",
        *("", "## Capacity", "", capacities(figures), "", assumptions(figures)),
        *("", "## Costs", "", steps(figures), "", processes(figures), ""),
        f"While all cores work, each has {figures['crowded']:.0%} of the speed that it has alone (`loadtest.crowd`).",
        f"Nobody works on a request for another {figures['lag_ms']:g} ms of its way from the client to the engine.",
        f"The API process and the client were measured without a model: `{figures['server']}`.",
    ]
    return "\n".join([*lines, *provenance(figures)]) + "\n"


def checks(figures: Mapping[str, Any]) -> str:
    head = ["model", "load", "predicted", "measured beside it", "error", "loadtest.batch", "error to batch"]
    rows = [
        [
            *(model, load, found["predicted"], found["measured"], f"{found['error']:+.0%}"),
            *((found["batch"], f"{found['error_of_batch']:+.0%}") if "batch" in found else ("-", "-")),
        ]
        for model, own in figures["models"].items()
        for load, found in own["checks"].items()
    ]
    return table(head, rows)


def capacities(figures: Mapping[str, Any]) -> str:
    rows = [
        [model, f"{answer} tokens", *(found[key] for key in CAPACITY)]
        for model, own in figures["models"].items()
        for answer, found in own["capacity"].items()
    ]
    return table(["model", "answer", *CAPACITY.values()], rows)


def assumptions(figures: Mapping[str, Any]) -> str:
    traffic, limits = figures["traffic"], figures["limits_seconds"]
    cores = next(iter(figures["models"].values()))["cores"]
    return (
        f"Prompts of {traffic['prompt']} tokens; {traffic['users']:,} users, each with {traffic['questions_per_hour']} "
        f"questions in the busiest hour, at random moments. A replica has {cores} cores. 99 % of the requests have "
        f"their first token within {limits['first_token']:g} s, and further ones every {limits['further_token']:g} s."
    )


def steps(figures: Mapping[str, Any]) -> str:
    """The time of a step by its rows, and what prompt tokens add to it."""
    models = figures["models"].items()
    first = next(iter(figures["models"].values()))
    head = [f"{count} rows" for count in first["decode_ms"]]
    head += [f"+ {count} prompt tokens" for count in first["prefill_ms"]]
    rows = [[name, *own["decode_ms"].values(), *own["prefill_ms"].values()] for name, own in models]
    return table(["ms per step", *head], rows)


def processes(figures: Mapping[str, Any]) -> str:
    """Processor time outside of the engine."""
    rows = [[name, *work.values()] for name, work in figures["microseconds"].items()]
    return table(["µs of processor time", "request", "message of a step", "token"], rows)
