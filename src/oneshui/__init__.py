"""oneshui: One-Shot Unlearning of Personal Identities (1-SHUI)."""

__version__ = "0.1.0"
