"""vLLM's parser of flags, with errors of one line."""

from __future__ import annotations

from typing import NoReturn

from vllm.utils.argparse_utils import FlexibleArgumentParser


class FlagParser(FlexibleArgumentParser):
    def error(self, message: str) -> NoReturn:
        """The message of a flag in JSON is pydantic's, with a link in its last line."""
        lines = [line.strip() for line in message.splitlines()]
        super().error(" ".join(line for line in lines if not line.startswith("For further information visit")))
