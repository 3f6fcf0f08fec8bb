"""The loads of `make loadtest`: kinds of use that stress different parts of a server."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.bench import TEXT, Load

OBJECTIVES = {"ttft": 500, "tpot": 50}
"""Latencies in milliseconds that a reader notices: half a second before the first token, and then less than twenty
tokens a second, which is fast reading."""
GOODPUT = ("--goodput", *(f"{name}:{most}" for name, most in OBJECTIVES.items()))


@dataclass(frozen=True)
class Scenario:
    name: str
    what: str
    load: Load
    stages: bool = False
    """Whether requests take turns among the growth stages that the server offers."""

    def options(self, models: list[str]) -> list[str]:
        """The options of `vllm bench serve` besides the load; `models` are the names of the model and its stages."""
        turns = ["--lora-modules", *models, "--lora-assignment", "round-robin"] if self.stages else []
        return [*GOODPUT, *turns]


def scenarios(share: float = 1.0) -> list[Scenario]:
    """All of them, with that share of the requests. Lengths fit the 512 positions of the demo."""
    many, some, few = (round(count * share) for count in (512, 256, 128))
    return [
        Scenario("short chat", "32 tokens in and out, 16 at a time", Load(many, 32, 32, 16)),
        Scenario("long prompt", "384 tokens in, 16 out, 8 at a time", Load(some, 384, 16, 8, TEXT)),
        Scenario(
            "shared prefix",
            "320 tokens in, of which 240 are one of 8 beginnings, 32 out, 16 at a time",
            Load(some, 320, 32, 16, TEXT, prefixes=8),
        ),
        Scenario("long generation", "32 tokens in, 400 out, 16 at a time", Load(few, 32, 400, 16, TEXT)),
        Scenario("mixed stages", "as short chat, the growth stages in turns", Load(many, 32, 32, 16), stages=True),
        Scenario("burst", f"64 tokens in and out, all {some} requests at once", Load(some, 64, 64, some)),
    ]
