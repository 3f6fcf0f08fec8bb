"""The flags that `tokenformer serve` has beyond vLLM's."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import get_args

from server.api.trace import MAX_POSITIONS
from server.gate.keys import KEYS_VARIABLE, VLLM_VARIABLE
from server.uncertainty.policy import DOUBT_TEXT, OnDoubt

READINESS_SECONDS = 2.0
MAX_BODY_BYTES = 4 << 20


def own_help() -> str:
    """The flags of ours, without vLLM's, whose import takes ten seconds."""
    parser = argparse.ArgumentParser(
        prog="tokenformer serve",
        usage="tokenformer serve MODEL [flags]",
        description="Serve MODEL, a directory or an id of the Hugging Face Hub, behind an OpenAI-compatible API.",
        epilog="All flags of `vllm serve` work as well, such as --host, --port and --served-model-name: --help=all "
        "lists all, --help=TEXT those whose name or group has the text.",
        add_help=False,
    )
    add_flags(parser)
    return parser.format_help()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add our groups to vLLM's parser."""
    _add_growth(parser)
    _add_calibration(parser)
    _add_doubt(parser)
    _add_trace(parser)
    _add_operation(parser)
    _add_access(parser)
    _add_observability(parser)


def _add_growth(parser: argparse.ArgumentParser) -> None:
    growth = parser.add_argument_group("Growth", "Growth deltas served on top of the checkpoint.")
    growth.add_argument(
        "--growth",
        action="append",
        default=[],
        type=named_path,
        metavar="NAME=PATH",
        help="Serve the checkpoint with the delta in directory PATH as model NAME; may be given several times.",
    )
    growth.add_argument(
        "--growth-root",
        type=Path,
        metavar="DIR",
        help="Let clients load and unload deltas below DIR at run time, by vLLM's /v1/load_lora_adapter and "
        "/v1/unload_lora_adapter. Off by default: whoever may call them changes what the server answers.",
    )


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    calibration = parser.add_argument_group("Calibration", "What turns token statistics into the risk of an answer.")
    calibration.add_argument(
        "--calibration",
        action="append",
        type=Path,
        metavar="FILE",
        help="Use this calibration, made by `tokenformer calibrate`, instead of the calibration*.json beside the "
        "weights or in the delta's directory; may be given several times, for different growth stages and deltas of "
        "--growth.",
    )


def _add_doubt(parser: argparse.ArgumentParser) -> None:
    doubt = parser.add_argument_group(
        "Doubt", "What happens to chats and completions with a high risk, unless their request says otherwise."
    )
    doubt.add_argument(
        "--on-doubt",
        choices=get_args(OnDoubt),
        default="flag",
        help="flag: deliver them (default). replace: deliver the text of --doubt-text instead, with finish_reason "
        "content_filter. refuse: an error, if all choices are doubted. The last two hold streams back until an answer "
        "is complete.",
    )
    doubt.add_argument(
        "--doubt-text", default=DOUBT_TEXT, metavar="TEXT", help=f'What replaces an answer (default: "{DOUBT_TEXT}").'
    )
    doubt.add_argument(
        "--doubt-above",
        type=probability,
        metavar="RISK",
        help="The risk above which an answer is doubted, from 0 to 1 (default: the limit of the calibration, see "
        "`tokenformer calibrate --abstain`).",
    )


def _add_trace(parser: argparse.ArgumentParser) -> None:
    trace = parser.add_argument_group("Trace", "Looking into the model by POST /v1/trace.")
    trace.add_argument(
        "--trace",
        action="store_true",
        help="Offer POST /v1/trace: the parameter tokens that contributed most at a position. Off by default: the API "
        "process then holds a float32 copy of the model and computes with it on the CPU.",
    )
    trace.add_argument(
        "--trace-corpus",
        type=Path,
        metavar="FILE",
        help='Let /v1/trace name the texts of FILE (JSON lines with "text" or "messages") that fire the same parameter '
        f"tokens. Clients can read them. Indexed in the background, up to {MAX_POSITIONS:,} tokens.",
    )


def _add_operation(parser: argparse.ArgumentParser) -> None:
    operation = parser.add_argument_group(
        "Operation",
        "What probes and supervisors see. See also --max-num-queued-reqs, --max-num-queued-tokens (here answered with "
        "429 before a request is tokenised) and --shutdown-timeout.",
    )
    operation.add_argument(
        "--readiness-timeout",
        type=float,
        default=READINESS_SECONDS,
        metavar="SECONDS",
        help="/readyz answers 503 when the engine makes no token for so long; raise it where one step of the engine "
        f"may take longer (default: {READINESS_SECONDS:g}).",
    )
    operation.add_argument(
        "--max-body-bytes",
        type=int,
        default=MAX_BODY_BYTES,
        metavar="BYTES",
        help="Requests with a larger body are answered with 413 (default: 4 MiB, a hundred times the longest prompt of "
        "the released models).",
    )


def _add_observability(parser: argparse.ArgumentParser) -> None:
    observability = parser.add_argument_group("Observability", "What the server writes down.")
    observability.add_argument(
        "--verbose",
        action="store_true",
        help="Also show the remarks of libraries that need no action, progress bars, and the traceback of an error at "
        "the start; so does setting VLLM_LOGGING_LEVEL. It is looked for on the command line only, as it must be known "
        "before vLLM is.",
    )
    observability.add_argument(
        "--access-log",
        choices=("json", "off"),
        default="json",
        help="Write one line of JSON to standard error when a request has ended: ids, model, tokens, latencies and how "
        "sure the answer was, but no text. Takes the place of uvicorn's access log, which "
        "--no-disable-uvicorn-access-log brings back.",
    )


def _add_access(parser: argparse.ArgumentParser) -> None:
    access = parser.add_argument_group("Access", "Who may ask. vLLM's --api-key is refused: it shows the key.")
    access.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="Answer only those who send one of the keys in FILE, one a line; blank lines and lines that begin with # "
        f"are skipped. Keys in {KEYS_VARIABLE} (separated by commas) and {VLLM_VARIABLE} are accepted as well.",
    )
    access.add_argument(
        "--allow-public-without-key",
        action="store_true",
        help="Serve an address that others can reach although there is no API key.",
    )
    access.add_argument(
        "--isolate-keys",
        action="store_true",
        help="Share cached prefixes only among the requests of one API key: otherwise the time that an answer takes "
        "tells whether someone else has sent the same beginning.",
    )


def probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to 1")
    return value


def named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)
