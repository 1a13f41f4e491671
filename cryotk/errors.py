"""Errors and warnings of cryotk: every message says what, where (file, line, column, particle) and what to do."""

__all__ = [
    "CheckpointError",
    "ConvergenceWarning",
    "CryotkError",
    "CryotkWarning",
    "DataError",
    "DataWarning",
    "DiskError",
    "ExecutionError",
    "FileFormatError",
    "FormatWarning",
    "MissingFileError",
    "SettingsError",
]


class CryotkError(Exception):
    """Base of all errors that are the user's to mend."""


class FileFormatError(CryotkError, ValueError):
    """A file is not what it should be."""


class MissingFileError(CryotkError, FileNotFoundError):
    """A file that is needed is not there."""


class DiskError(CryotkError, OSError):
    """A file could not be written: the disk is full, or the folder is not ours to write in."""


class SettingsError(CryotkError, ValueError):
    """A setting is out of its range or does not fit the others."""


class DataError(CryotkError, ValueError):
    """Particles, images or maps do not hold what is needed."""


class CheckpointError(CryotkError, RuntimeError):
    """A checkpoint is broken or belongs to something else."""


class ExecutionError(CryotkError, RuntimeError):
    """Workers or devices could not do their part."""


class CryotkWarning(UserWarning):
    """Base of all warnings."""


class DataWarning(CryotkWarning):
    """Data look wrong but can be used."""


class FormatWarning(CryotkWarning):
    """A file departs from its format but can be read."""


class ConvergenceWarning(CryotkWarning):
    """An algorithm did not do what it should."""
