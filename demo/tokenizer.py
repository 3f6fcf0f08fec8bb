"""The demo's tokenizer: byte-level BPE in which a name has the same tokens everywhere.

A capitalised word or a number never takes the space before it into its token; a lower-case word does. So `Mara
Velen` is one sequence of tokens at the start of a text, after a space, a quote or a bracket, and running text still
needs few tokens for its spaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 1536
"""At most this many ids: enough for every word of the world to become one token, which takes about 1,450."""

CONTEXT = 512
"""Longest text in tokens that the demo model takes: the length of its long training rows."""

END_OF_TEXT, END, USER, ASSISTANT, SYSTEM = "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL_TOKENS = (END_OF_TEXT, END, USER, ASSISTANT, SYSTEM)
"""In the order of their ids. END closes a turn and is where an answer stops; END_OF_TEXT separates texts."""

PIECES = r"\p{Lu}[\p{Ll}\p{M}]*| ?[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,4}| ?[^\s\p{L}\p{M}\p{N}]+|\s"
"""Capitalised words, lower-case words and punctuation (each with one space before), numbers, single white space."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- set role = 'system' if message['role'] == 'developer' else message['role'] -%}
{%- if role not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('a message role must be system, user or assistant, not ' ~ role) -}}
{%- endif -%}
{{- '<|' ~ role ~ '|>' ~ message['content'] | trim ~ '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


def special_id(token: str) -> int:
    """The id of one of SPECIAL_TOKENS."""
    return SPECIAL_TOKENS.index(token)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`, until VOCABULARY ids are reached or every word is one token."""
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    )


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `directory` (a checkpoint)."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory)
    return tokenizer
