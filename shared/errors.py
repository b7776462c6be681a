"""Errors that end a command, and say to the person who started it what to do.

Only ``__main__`` catches them: a :class:`ConfigError` is exit status 2, any other :class:`SluicewayError` is 1.
Whatever else comes out of a command is a defect of ours, and shows its traceback.
"""

from __future__ import annotations


class SluicewayError(Exception):
    """Something that stops the work and that the person who runs it can mend; its text is the whole message."""


class ConfigError(SluicewayError):
    """The configuration cannot be used: names the file or variable, the key, and what is allowed there."""


class StartError(SluicewayError):
    """A command cannot begin its work: a port is taken, a lake cannot be written to."""


class UnknownSchemaError(SluicewayError):
    """A message has a schema version that this program does not know, so its columns cannot be trusted."""
