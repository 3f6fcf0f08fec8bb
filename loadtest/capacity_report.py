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
        "",
        "## Predicted and measured",
        "",
        checks(figures),
    ]
    lines += ["", "Output tok/s of a closed loop, prompts and answers of 32 tokens; clients on the same cores."]
    lines += ["", "## Capacity", "", capacities(figures), "", assumptions(figures), "", "## Costs", ""]
    lines.append(steps(figures["models"]))
    head = ["µs of processor time", "request", "message of a step", "token"]
    lines += ["", table(head, [[name, *work.values()] for name, work in figures["microseconds"].items()])]
    lines += [
        "",
        "Transport is the engine's packing and sending of tokens. Without a model: `" + figures["server"] + "`.",
    ]
    return "\n".join([*lines, *provenance(figures)]) + "\n"


def checks(figures: Mapping[str, Any]) -> str:
    head = ["model", "load", "predicted", "measured beside it", "error", "loadtest.batch", "error"]
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


def steps(models: Mapping[str, Any]) -> str:
    """The time of a step by its rows, and what prompt tokens add to it."""
    first = next(iter(models.values()))
    head = [
        *(f"{rows} rows" for rows in first["decode_ms"]),
        *(f"+ {count} prompt tokens" for count in first["prefill_ms"]),
    ]
    rows = [[name, *own["decode_ms"].values(), *own["prefill_ms"].values()] for name, own in models.items()]
    return table(["ms per step", *head], rows)
