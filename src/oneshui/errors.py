"""Exceptions that a user of oneshui can meet.

OneShuiError
 |- ConfigError        a value in the configuration is impossible or unknown
 |- DataError          a raw file, annotation row, image or table is missing or wrong
 |- CheckpointError    a model file is missing, damaged, or does not fit
 |- ArtefactError      an unlearning artefact is missing, or belongs to another model
 |- BundleError        a bundle, key or receipt is missing, was changed, or cannot serve a request
 `- IsolationError     an unlearning process could open what it must not, or ended without a word

Every message says what is wrong, where (file and row), what is allowed and what to do.
"""


class OneShuiError(Exception):
    """Base of all errors that oneshui raises on purpose."""


class ConfigError(OneShuiError):
    """A value in the configuration is impossible or unknown."""


class DataError(OneShuiError):
    """A raw file, annotation row, image or table is missing or wrong."""


class CheckpointError(OneShuiError):
    """A model file is missing, damaged, or does not fit the request."""


class ArtefactError(OneShuiError):
    """An unlearning artefact is missing, or belongs to another model."""


class BundleError(OneShuiError):
    """A bundle, key or receipt is missing, was changed, or cannot serve a request."""


class IsolationError(OneShuiError):
    """An unlearning process could open what it must not, or ended without a word."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
