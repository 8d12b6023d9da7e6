"""Fuzzing: the public functions by hypothesis (`python -m tests.fuzz`), the parsers by coverage (`python -m tests.fuzz.parsers`)."""
