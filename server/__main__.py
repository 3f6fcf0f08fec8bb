"""The command line, `tokenformer`. It imports nothing before it is needed; only `serve` and `calibrate` load vLLM."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from model_impl.one_line_error import OneLineError
from model_impl.training.command import add_arguments
from server.system.stderr import say

if TYPE_CHECKING:
    import torch


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; `argv` without the program's name. Exit code 0, 1 for a failure, 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["serve"]:  # before argparse: every flag, also --help, belongs to the server
        return _serve(argv[1:])
    arguments = _parser().parse_args(argv)
    if arguments.command == "chat":  # a client: it needs neither torch nor a checkpoint
        from server.clients.chat import main as chat

        return chat(arguments.url, arguments.model, arguments.temperature)
    exit_on_sigterm()
    try:
        commands = {
            "convert": _convert,
            "grow": _grow,
            "split": _split,
            "inspect": _inspect,
            "train": _train,
            "calibrate": _calibrate,
        }
        commands[arguments.command](arguments)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (OneLineError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


def _serve(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        from server.process.flags import own_help

        print(own_help(), end="")
        return 0
    from server.process.early_signals import EarlySignals
    from server.system.quiet import keep_quiet

    if "--verbose" not in argv and "VLLM_LOGGING_LEVEL" not in os.environ:
        keep_quiet()  # before torch is imported
    with EarlySignals() as early:  # before libraries start threads, which inherit the mask
        from server.process.serve import main
        from server.system.log_writer import protect_output

        if not any(flag.partition("=")[0] in ("-h", "--help") for flag in argv):  # long output, read slowly
            protect_output()
        return main(argv, early)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tokenformer", description="Serve grown Tokenformer models.")
    version = importlib.metadata.version("tokenformer-server")
    parser.add_argument("--version", action="version", version=f"tokenformer-server {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="serve a model behind an OpenAI-compatible API (see serve --help)")

    convert = commands.add_parser("convert", help="convert an official checkpoint", description="Convert SOURCE.")
    convert.add_argument("source", type=Path, metavar="SOURCE", help="weight file, or the directory that holds it")
    convert.add_argument("dest", type=Path, metavar="DEST", help="directory to write; must be new or empty")
    convert.add_argument("--config", type=Path, metavar="F", help="official yml or json (default: found in SOURCE)")
    convert.add_argument(
        "--tokenizer", type=Path, metavar="F", help="tokenizer.json or its directory (default: found in SOURCE)"
    )

    grow = commands.add_parser(
        "grow",
        help="append parameter tokens to a checkpoint",
        description="Write SOURCE plus one growth stage: new parameter tokens in every block, ready to be trained.",
    )
    grow.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint directory")
    grow.add_argument("dest", type=Path, metavar="DEST", help="directory to write; must be new or empty")
    grow.add_argument(
        "--tokens",
        required=True,
        metavar="query=N,key=N,value=N,output=N,ffn=N",
        help="NEW tokens to append per projection and block; 0, or leaving a projection out, appends none there",
    )
    grow.add_argument("--name", metavar="STAGE", help="name of the stage (default: grown-1, grown-2, ...)")
    grow.add_argument(
        "--norm",
        default="grouped",
        metavar="grouped|joint",
        help="normalise the new tokens as a group of their own, so that training them never disturbs the old ones "
        "(default), or jointly with the group before, as the official code does",
    )
    grow.add_argument(
        "--init",
        metavar="zero-values|zero-keys|tile|repeat|random",
        help="zero-values: random keys, zero values (default of grouped); zero-keys: zero keys, random values (default "
        "of joint with an L2 norm); tile: every token in equal parts, which changes the old values; repeat: the old "
        "keys, zero values (default of joint with softmax); random: both random, which changes what the model does",
    )
    grow.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random tokens (default: 0)")

    split = commands.add_parser(
        "split",
        help="write one stage's new tokens as a delta",
        description="Write the tokens of one growth stage as a small directory that names its base by fingerprint.",
    )
    split.add_argument("grown", type=Path, metavar="GROWN", help="checkpoint directory")
    split.add_argument("dest", type=Path, metavar="DEST", help="directory to write; must be new or empty")
    split.add_argument("--stage", metavar="NAME", help="the stage to write (default: the last one)")

    inspect = commands.add_parser(
        "inspect", help="show what a checkpoint or a delta is", description="Show sizes and identity."
    )
    inspect.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint or delta directory")
    inspect.add_argument("--json", action="store_true", help="print JSON instead of a table")
    inspect.add_argument(
        "--geometry",
        action="store_true",
        help="report how crowded the parameter tokens are, by layer and projection, beside random ones",
    )
    inspect.add_argument(
        "--data",
        type=Path,
        metavar="F",
        help="with --geometry: JSON lines of texts, on which the tokens' use is measured",
    )
    inspect.add_argument("--plot", type=Path, metavar="F", help="with --geometry: SVG file to write")

    add_arguments(commands.add_parser("train", help="train a new model, a checkpoint, or one growth stage alone"))

    calibrate = commands.add_parser(
        "calibrate",
        help="learn from labelled answers how likely an answer is wrong",
        description="Fit the risk that `serve` reports for MODEL on half of the labelled answers, and report how "
        "well it does on the other half.",
    )
    calibrate.add_argument("model", metavar="MODEL", help="directory, or an id of the Hugging Face Hub")
    calibrate.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="F",
        help='JSON lines with "prompt" or "messages", and either an "answer" that is "correct": true or false, or '
        '"answer": "generate" and the "expected" text, or a list of them; labels of one "group" stay together, '
        'and several "topic"s show how well the risk does on topics that it was not fitted on',
    )
    calibrate.add_argument(
        "--method",
        default="logistic",
        metavar="logistic|isotonic|probe",
        help="logistic: from the summary of an answer (default); isotonic: from its highest token entropy, by any "
        "increasing function; probe: from everything that was measured of it, of which the data decides what is used",
    )
    calibrate.add_argument(
        "--ensemble",
        type=int,
        metavar="M",
        help="let the probe read what M members, 2 to 64, of the parameter-token ensemble say of each answer; if that "
        "helps, serving the calibration asks them as well, which costs about M prefills an answer",
    )
    calibrate.add_argument("--stage", metavar="NAME", help="growth stage to calibrate (default: the last one)")
    calibrate.add_argument(
        "--growth", type=Path, metavar="DELTA", help="calibrate MODEL with the growth delta in this directory"
    )
    calibrate.add_argument(
        "--abstain",
        type=float,
        metavar="RATE",
        help="also find the risk above which answers must be flagged so that at most this share of all answers, for "
        "instance 0.1, is expected to be wrong and not flagged",
    )
    calibrate.add_argument(
        "--out", type=Path, metavar="DIR", help="directory to write to (default: MODEL or DELTA, where serve finds it)"
    )

    chat = commands.add_parser(
        "chat",
        help="talk to a server, every token tinted by its entropy",
        description="Talk to the server at URL. From a pipe, every line is a question of its own and the output plain. "
        "The API key is taken from OPENAI_API_KEY.",
    )
    chat.add_argument("url", metavar="URL", help="address of the server, for instance http://127.0.0.1:8000")
    chat.add_argument("--model", metavar="NAME", help="model or growth stage to ask (default: the first listed)")
    chat.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 always takes the likeliest token (default: 0)"
    )
    return parser


def _convert(arguments: argparse.Namespace) -> None:
    from model_impl.checkpoint.convert import convert

    config = convert(arguments.source, arguments.dest, arguments.config, arguments.tokenizer)
    print(f"{arguments.dest}: {config.num_hidden_layers} layers of {config.hidden_size}, {config.dtype}")
    if not (arguments.dest / "tokenizer.json").exists():
        print("no tokenizer found: serving over HTTP needs one (see --tokenizer)", file=sys.stderr)
    else:
        print(f"next: tokenformer serve {arguments.dest}")


def _grow(arguments: argparse.Namespace) -> None:
    from model_impl.checkpoint.grow import default_init, grow, parse_tokens, preserves_function
    from model_impl.reference.logit_change import logit_change

    source, dest, norm = arguments.source, arguments.dest, arguments.norm
    tokens = parse_tokens(arguments.tokens)
    config = grow(source, dest, tokens, arguments.name, norm, arguments.init, arguments.seed)
    stage, activation = config.stages[-1], config.norm_activation_type
    added = 2 * config.num_hidden_layers * config.hidden_size * sum(tokens.values())
    print(f"{dest}: stage {stage.name} adds {added:,} parameters")
    init = arguments.init or default_init(norm, activation)
    if not preserves_function(norm, init, activation):
        print(f"--norm {norm} --init {init} changes what a model with {activation} computes", file=sys.stderr)
    print(logit_change(source, dest) or "too large to measure here how far the logits move")
    print(f"next: tokenformer train {dest} --stage {stage.name} --data NEW.jsonl --replay OLD.jsonl --out TRAINED")


def _split(arguments: argparse.Namespace) -> None:
    from model_impl.checkpoint.delta import split

    delta = split(arguments.grown, arguments.dest, arguments.stage)
    print(f"{arguments.dest}: stage {delta.name} over the base {delta.base_fingerprint}")


def _inspect(arguments: argparse.Namespace) -> None:
    from model_impl.checkpoint.inspection import DELTA, format_report, inspect_checkpoint

    if is_delta := (arguments.checkpoint / DELTA).is_file():
        from model_impl.checkpoint.delta_inspection import format_delta, inspect_delta

        report = inspect_delta(arguments.checkpoint)
        lines = [format_delta(report)]
    else:
        report = inspect_checkpoint(arguments.checkpoint)
        lines = [format_report(report)]
    if arguments.geometry and is_delta:
        raise OneLineError("--geometry: a delta alone is no model; inspect the checkpoint that it was split from")
    if arguments.geometry:
        from model_impl.reference.geometry import rows
        from model_impl.reference.geometry_report import as_entries, plot, table
        from model_impl.reference.model import load_reference

        measured = list(rows(load_reference(arguments.checkpoint), _texts(arguments)))
        report["geometry"] = as_entries(measured)
        lines += ["", table(measured)]
        if arguments.plot:
            arguments.plot.write_bytes(plot(measured))
    elif arguments.data or arguments.plot:
        raise OneLineError("--data and --plot: only together with --geometry")
    print(json.dumps(report, indent=2) if arguments.json else "\n".join(lines))


def _texts(arguments: argparse.Namespace) -> Iterator[torch.Tensor]:
    """The texts of --data as ids [1, T], as far as the model takes them."""
    if arguments.data is None:
        return
    import torch

    from model_impl.checkpoint.reading import load_config
    from model_impl.texts import TextTokenizer, TokenizedCheckpoint, read_texts, tokenised

    texts, _ = read_texts(arguments.data)
    longest = load_config(arguments.checkpoint).max_position_embeddings
    for ids in tokenised(arguments.data, texts, TextTokenizer(TokenizedCheckpoint(arguments.checkpoint))):
        if ids:
            yield torch.tensor([ids[:longest]])


def _train(arguments: argparse.Namespace) -> None:
    from model_impl.training.command import run

    run(arguments)


def _calibrate(arguments: argparse.Namespace) -> None:
    from server.calibrate.labels import check_number, read_labels

    data = read_labels(arguments.data)  # reports faults before imports that take seconds
    check_number(data.labels)
    from server.system.quiet import keep_quiet

    if "VLLM_LOGGING_LEVEL" not in os.environ:
        keep_quiet()  # before torch is imported
    from server.calibrate.cautions import cautions
    from server.calibrate.command import calibrate

    calibration, file = calibrate(
        arguments.model,
        data,
        arguments.method,
        arguments.stage,
        arguments.abstain,
        arguments.out,
        arguments.ensemble,
        arguments.growth,
    )
    auroc, ece = (calibration.figures[name]["value"] for name in ("auroc", "ece"))
    print(f"{file}: {calibration.name}, on held-out answers AUROC {auroc:.3f}, ECE {ece:.3f}")
    for line in cautions(calibration):
        print(f"warning: {line}")
    if calibration.abstain:
        above, rate = calibration.abstain["above"], calibration.abstain["error_rate"]
        print(f"flag answers with a risk above {above:.4f} for at most {rate:.0%} wrong and not flagged")
    print(f"report: {file.with_suffix('.md')}")


def exit_on_sigterm() -> None:
    """Raise SystemExit on SIGTERM, so that a terminated conversion removes its partial output."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


if __name__ == "__main__":
    sys.exit(main())
