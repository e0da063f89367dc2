"""Coverage-guided fuzzing of the readers (``python -m tests.fuzz``); docs/reliability.md has the command."""
