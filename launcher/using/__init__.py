"""Asking what was trained: adapters by their names, prompts, answers, and a chat."""
