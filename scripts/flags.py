"""Writes docs/flags.md, every flag and environment variable of ours: `python -m scripts.flags`."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.calibrate.markdown import table
from server.process.flags import add_flags

PAGE = Path(__file__).resolve().parent.parent / "docs" / "flags.md"

HEAD = """\
# Flags and environment variables

`tokenformer serve` takes vLLM's flags unchanged, and these. [vLLM's documentation](https://docs.vllm.ai/en/latest/cli/serve/)
lists its own. This page is written by `python -m scripts.flags` from the code, and a test keeps it current.
"""

VARIABLES = {
    "TOKENFORMER_API_KEYS": "API keys, separated by commas; see [security](security.md#keys)",
    "VLLM_API_KEY": "one API key, as in vLLM",
    "TOKENFORMER_MAX_CPU_LEVEL": "the highest level of our CPU kernels: `default`, `avx2`, `avx512` or `avx512_bf16` "
    "(default: that of the processor); see [operations](operations.md#processors)",
    "VLLM_USE_V2_MODEL_RUNNER": "`1` chooses vLLM's V2 model runner (default here: `0`); see "
    "[decision 1](decisions/0001-model-runner-v2.md)",
    "VLLM_LOGGING_LEVEL": "vLLM's log level (default here: `WARNING`); setting it does what `--verbose` does",
    "TOKENFORMER_QUIET": "set for the server's processes unless it is verbose; of no use to users",
    "VLLM_LOGGING_COLOR": "`1` colours vLLM's log (default here: `1` on a terminal)",
    "VLLM_NO_USAGE_STATS": "`0` sends usage statistics to vLLM's authors (default here: `1`)",
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "`0` lets vLLM end a server whose engine has died; `1`, the default here, "
    "leaves it to us, with an error in the log",
    "VLLM_PLUGINS": "vLLM's plugins to load, separated by commas; `tokenformer` is always added",
    "VLLM_CPU_OMP_THREADS_BIND": "the cores of each rank, as in vLLM; set, it replaces our choice of cores and threads",
    "VLLM_USE_RUST_FRONTEND": "must not be `1`: that front end has none of our routes and limits, and is refused",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "set by `--growth-root`; without that flag it lets clients load nothing",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "`1` gives `tokenformer calibrate` an engine process (default there: `0`)",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "seconds that a connection may wait for its next request, as in vLLM (5)",
    "VLLM_WORKER_MULTIPROC_METHOD": "`fork` disables the protection of child processes from signals; see "
    "[operations](operations.md#shutdown)",
    "CUSTOM_SCRIPT_FILENAME": "the program of a SageMaker container, which a library would run (default here: none)",
    "OMP_NUM_THREADS": "threads of a process that computes (default: by the size of the model and the cores)",
    "KMP_BLOCKTIME": "milliseconds that an idle thread spins (default here: `5`)",
    "KMP_TPAUSE": "how an idle thread waits (default here: `0`)",
    "KMP_AFFINITY": "how threads are bound to cores (default here: `none`)",
    "LD_PRELOAD": "Intel's OpenMP library is put in front of it where vLLM brings it",
    "OPENAI_API_KEY": "the key that `tokenformer chat` sends",
    "OPENAI_ORG_ID": "an organisation, which it sends as OpenAI's client does",
    "OPENAI_PROJECT_ID": "a project, likewise",
}


def page() -> str:
    parser = argparse.ArgumentParser(add_help=False)
    add_flags(parser)
    sections = [HEAD]
    for group in parser._action_groups:
        if not group._group_actions:
            continue
        rows = [(_flag(action), _default(action), _cell(action.help or "")) for action in group._group_actions]
        sections.append(f"## {group.title}\n\n{group.description}\n\n{table(('flag', 'default', 'meaning'), rows)}\n")
    variables = [(f"`{name}`", meaning) for name, meaning in VARIABLES.items()]
    sections.append(f"## Environment variables\n\n{table(('variable', 'meaning'), variables)}\n")
    return "\n".join(sections)


def _flag(action: argparse.Action) -> str:
    value = "\\|".join(action.choices) if action.choices else action.metavar
    return f"`{action.option_strings[0]}{f' {value}' if value else ''}`"


def _default(action: argparse.Action) -> str:
    return "-" if action.default in (None, False, []) else f"`{action.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}")
