"""`tokenformer chat`: a conversation in the terminal, every token tinted by its entropy, with rich and OpenAI's client.

Every line from a pipe is a question of its own, and the output is then plain.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from rich.console import Console
from rich.text import Text

from server.clients.tint import Tint, harmless, legend, one_line, summary

HELP = (
    "/model lists the models, /model NAME changes it, /new forgets the conversation, /quit ends, Ctrl-C stops an answer"
)

SENT_VARIABLES = ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""Environment variables that OpenAI's client sends in headers."""

MALFORMED = (AttributeError, TypeError, UnicodeDecodeError, json.JSONDecodeError)
"""Errors of OpenAI's client, which checks no types, for JSON that the API does not allow."""


class ChatError(Exception):
    """A question or setting that cannot be answered; the message is for the user."""


class Chat:
    """A conversation with one of a server's models."""

    def __init__(self, url: str, model: str | None, temperature: float) -> None:
        """Raises ChatError if the server does not answer or has no such model, and for wrong settings."""
        check_url(url)
        for variable in SENT_VARIABLES:
            if not all("!" <= character <= "~" for character in os.environ.get(variable, "")):
                raise ChatError(f"{variable} may only hold printable ASCII characters, and no spaces or line breaks")
        if not math.isfinite(temperature):
            raise ChatError(f"--temperature: {temperature} is not a finite number")
        base = url.rstrip("/")
        self.url = base if base.endswith("/v1") else f"{base}/v1"
        self.temperature = temperature
        self.history: list[ChatCompletionMessageParam] = []
        try:
            key = os.environ.get("OPENAI_API_KEY") or "none"
            self.client = openai.OpenAI(base_url=self.url, api_key=key, max_retries=0)
            self.models = self._list_models()
        except ChatError:
            raise
        except Exception as error:  # headers, proxies and certificates in the environment
            raise ChatError(f"{self.url} cannot be asked: {error}") from error
        self.use(model or next(iter(self.models)))

    def _list_models(self) -> dict[str, str]:
        try:
            cards = {card.id: (card.model_extra or {}).get("growth_stage") or "" for card in self.client.models.list()}
        except openai.OpenAIError as error:
            raise ChatError(self.explain(error)) from error
        except MALFORMED as error:
            raise ChatError(f"{self.url} does not answer as OpenAI's API does") from error
        if not cards:
            raise ChatError(f"{self.url} serves no model")
        return cards

    def use(self, model: str) -> None:
        """Ask `model` from now on; the conversation stays."""
        if model not in self.models:
            raise ChatError(f"there is no model {model}; there are {', '.join(self.models)}")
        self.model = model

    def ask(self, question: str) -> Iterator[ChatCompletionChunk]:
        """The answer's chunks; a question without a complete answer is forgotten. Raises ChatError."""
        if not is_text(question):
            raise ChatError(f"the input is not {sys.stdin.encoding}")
        asked: list[ChatCompletionMessageParam] = [*self.history, {"role": "user", "content": question}]
        answer, began, finished = "", False, False
        try:
            with self.client.chat.completions.create(
                model=self.model,
                messages=asked,
                temperature=self.temperature,
                stream=True,
                logprobs=True,
                extra_body={"uncertainty": {"tokens": True, "spans": True}},
            ) as chunks:
                for chunk in chunks:
                    began = True
                    yield chunk
                    for choice in chunk.choices:
                        answer += choice.delta.content or ""
                        finished = finished or choice.finish_reason is not None
        except openai.APIConnectionError as error:
            lost = "the connection was lost before the answer was complete"
            raise ChatError(lost if began else self.explain(error)) from error
        except openai.OpenAIError as error:
            raise ChatError(self.explain(error)) from error
        if not finished:
            raise ChatError("the connection ended before the answer was complete")
        self.history = [*asked, {"role": "assistant", "content": answer}]

    def explain(self, error: openai.OpenAIError) -> str:
        """The error in the server's own words, if it has sent any."""
        if isinstance(error, openai.APIStatusError):
            body: Any = error.body
            said = body.get("message") or body.get("error") or body if isinstance(body, dict) else body
            key = " (is OPENAI_API_KEY right?)" if error.status_code == 401 else ""
            return f"the server refused ({error.status_code}): {said or error.message}{key}"
        if isinstance(error, openai.APIConnectionError):
            return f"{self.url} cannot be reached"
        return f"the server gave up: {error}"


def check_url(url: str) -> None:
    """Raises ChatError."""
    if not url.startswith(("http://", "https://")):
        raise ChatError(f"{url} is not a URL: it has to begin with http:// or https://")
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError as error:
        raise ChatError(f"{url} is not a URL: its host or port is wrong") from error


def is_text(line: str) -> bool:
    """Whether all of it could be decoded: other bytes became lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in line)


def answer(chat: Chat, question: str, console: Console) -> None:
    """Ask and print; Ctrl-C stops the answer. Raises ChatError."""
    uncertainty: object = None
    tint: Tint | None = None
    try:
        for chunk in chat.ask(question):
            tint = tint or Tint()
            for choice in chunk.choices:
                logprobs = choice.logprobs and choice.logprobs.content
                show(console, tint.add(choice.delta.content or "", logprobs or ()), end="")
                uncertainty = (choice.model_extra or {}).get("uncertainty") or uncertainty
    except MALFORMED as error:
        raise ChatError("the server does not answer as OpenAI's API does") from error
    finally:
        if tint is not None:
            show(console, tint.rest())
    for line in summary(uncertainty) if uncertainty else ():
        show(console, line)


def show(console: Console, text: Text, end: str = "\n") -> None:
    """Print text so that the server cannot operate the terminal, which rich would allow. All output passes here. It
    is not wrapped by rich, because a token does not know its column."""
    text.plain = harmless(text.plain)
    console.print(text, end=end, soft_wrap=True, highlight=False)


def command(chat: Chat, words: Sequence[str], console: Console) -> bool:
    """Execute a line that starts with /; returns whether the conversation goes on."""
    match words:
        case ["/quit"]:
            return False
        case ["/new"]:
            chat.history = []
            show(console, Text("The conversation is forgotten."))
        case ["/model"]:
            for name, stage in chat.models.items():
                show(console, Text(f"{'*' if name == chat.model else ' '} {name}{stage and f' (stage {stage})'}"))
        case ["/model", name]:
            chat.use(name)
            show(console, Text(f"{name} answers from now on; the conversation stays."))
        case _:
            show(console, Text(HELP))
    return True


def main(url: str, model: str | None, temperature: float) -> int:
    """Talk until the input ends. Exit code 1 if the server cannot be asked, if a question from a pipe was not
    answered, or if the input or output fails; 130 if interrupted."""
    tolerate_encodings()
    console, errors = Console(), Console(stderr=True)
    try:
        if sys.stdin is None or sys.stdout is None:
            raise ChatError(f"the standard {'input' if sys.stdin is None else 'output'} is closed")
        return talk(Chat(url, model, temperature), console, errors)
    except ChatError as error:
        complain(errors, error)
        return 1
    except OSError as error:
        with suppress(OSError):
            complain(errors, ChatError(f"the input or output failed: {error.strerror}"))
        console.on_broken_pipe()
        return 1
    except KeyboardInterrupt:
        console.print()
        return 130


def tolerate_encodings() -> None:
    """Let undecodable bytes fail one question only, and replace characters that the output cannot encode."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def complain(errors: Console, error: ChatError) -> None:
    show(errors, Text(f"tokenformer: error: {one_line(error)}"))


def talk(chat: Chat, console: Console, errors: Console) -> int:
    """Ask every line of the input; returns the exit code."""
    interactive, failed = sys.stdin.isatty(), False
    if interactive:
        import readline  # noqa: F401 - gives `input` editing and a history

        show(console, Text(f"{chat.model} at {chat.url}. ").append("/help lists the commands."))
        show(console, legend())
    for line in lines(interactive):
        try:
            if not interactive:
                chat.history = []
            elif line.startswith("/"):
                if not command(chat, line.split(), console):
                    break
                continue
            answer(chat, line, console)
        except ChatError as error:
            failed = True
            complain(errors, error)
        except KeyboardInterrupt:
            if not interactive:
                raise
            show(console, Text("The answer is stopped, and its question forgotten."))
    return int(failed and not interactive)


def lines(interactive: bool) -> Iterator[str]:
    """The lines of the input that are not blank."""
    while True:
        try:
            line = input("> ") if interactive else sys.stdin.readline()
        except EOFError:
            print()
            return
        if line.strip():
            yield line.strip()
        elif not line and not interactive:
            return
