"""Errors a user can cause and mend. Everything else is a bug and may raise anything."""


class QwenTTSError(Exception):
    """Base of every error raised for bad input; the command line prints it and exits with 2."""


class ConfigError(QwenTTSError):
    """A configuration file is missing, malformed, or describes another architecture."""


class CheckpointError(QwenTTSError):
    """A weight or tokenizer file is missing or damaged, or a tensor is not what the layout demands."""


class RequestError(QwenTTSError):
    """An argument of a call is not something this model can do."""


class OutputError(RequestError, CheckpointError):
    """A file or folder cannot be written. Writers of checkpoints announce a CheckpointError, others a RequestError."""
