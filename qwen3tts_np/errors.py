"""Errors that a user can cause and fix. Everything else is a bug and may raise anything.

Each is also the built-in error that the official package, or Python's habit, has in its place: a script that catches
``ValueError``, ``TypeError`` or ``FileNotFoundError`` continues to work. Trap: an ``except ValueError`` around our own
calls catches them as well.
"""

from .shown import printable, with_short_words, without_passwords


class QwenTTSError(Exception):
    """Base of every error raised for bad input; the command line prints it and exits with 2.

    One line that is safe to print: what a file or a server says may hold control characters, and be of any length.
    Names and passwords in URLs are left out.
    """

    def __str__(self) -> str:
        return printable(with_short_words(without_passwords(super().__str__())))


class ConfigError(QwenTTSError, ValueError):
    """A configuration file is missing, malformed, or describes another architecture."""


class CheckpointError(QwenTTSError, ValueError):
    """A weight or tokenizer file is missing or damaged, or a tensor is not what the layout requires."""


class RequestError(QwenTTSError, ValueError):
    """An argument of a call is not something this model can do."""


class RequestTypeError(RequestError, TypeError):
    """An argument is of a type that the call does not take, or has a name that it does not know."""


class AudioTooLong(RequestError):
    """A sound lasts longer than what it is for allows."""


class MissingFileError(ConfigError, CheckpointError, RequestError, FileNotFoundError):
    """A path or a model name does not exist."""


class OutputError(RequestError, CheckpointError):
    """A file or folder cannot be written. Writers of checkpoints announce a CheckpointError, others a RequestError."""


class InputError(ConfigError, CheckpointError, RequestError):
    """A file that the user names cannot be read; its cause is the error of the system, if that refused it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read: {reason}")
        self.name: str = name
        self.reason: str = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """From one process to another, as a pool of workers hands errors on."""
        return type(self), (self.name, self.reason)


class MissingInputError(InputError, MissingFileError):
    """A file that the user names does not exist."""
