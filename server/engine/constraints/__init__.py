"""Constraints that a request puts on its answer: bad words, stop strings and grammars."""
