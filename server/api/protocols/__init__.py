"""Protocols beside chats and completions: OpenAI's responses, Anthropic's messages, and batches of chats."""
