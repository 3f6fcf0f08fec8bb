"""What a request may forbid or demand of its answer: bad words, stop strings and grammars, checked as vLLM would."""
