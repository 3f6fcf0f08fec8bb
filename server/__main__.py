"""The command line, `tokenformer`. Only `serve` loads vLLM, and nothing is imported before it is needed."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; `argv` without the program's name. Exit code 0, 1 for a failure, 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["serve"]:  # before argparse: every flag belongs to the server, also --help
        from server.serve import main as serve

        return serve(argv[1:])
    arguments = _parser().parse_args(argv)
    from model_impl.checkpoint import CheckpointError
    from model_impl.config import ConfigError

    exit_on_sigterm()
    try:
        if arguments.command == "convert":
            _convert(arguments)
        else:
            _inspect(arguments)
    except (CheckpointError, ConfigError, OSError) as error:
        print(f"tokenformer: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tokenformer: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tokenformer", description="Serve grown Tokenformer models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="serve a checkpoint behind an OpenAI-compatible API (see serve --help)")

    convert = commands.add_parser("convert", help="convert an official checkpoint", description="Convert SOURCE.")
    convert.add_argument("source", type=Path, metavar="SOURCE", help="weight file, or the directory that holds it")
    convert.add_argument("dest", type=Path, metavar="DEST", help="directory to write; must not exist or be empty")
    convert.add_argument("--config", type=Path, metavar="F", help="official yml or json (default: found in SOURCE)")
    convert.add_argument(
        "--tokenizer", type=Path, metavar="F", help="tokenizer.json or its directory (default: found in SOURCE)"
    )

    inspect = commands.add_parser("inspect", help="show what a checkpoint is", description="Show sizes and identity.")
    inspect.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint directory")
    inspect.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _convert(arguments: argparse.Namespace) -> None:
    from model_impl.convert import convert

    config = convert(arguments.source, arguments.dest, arguments.config, arguments.tokenizer)
    dtype = str(config.dtype).removeprefix("torch.")
    print(f"{arguments.dest}: {config.num_hidden_layers} layers of {config.hidden_size}, {dtype}")
    if not (arguments.dest / "tokenizer.json").exists():
        print("no tokenizer found: the checkpoint takes token ids only (see --tokenizer)", file=sys.stderr)


def _inspect(arguments: argparse.Namespace) -> None:
    from model_impl.inspection import format_report, inspect_checkpoint

    report = inspect_checkpoint(arguments.checkpoint)
    print(json.dumps(report, indent=2) if arguments.json else format_report(report))


def exit_on_sigterm() -> None:
    """Let a terminated conversion remove what it has written so far: SystemExit runs its clean-up."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


if __name__ == "__main__":
    sys.exit(main())
