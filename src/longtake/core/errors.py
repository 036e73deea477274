"""Errors that users can meet; each message states what was expected, what was found, and a remedy."""


class LongtakeError(Exception):
    """Base class of all intended errors; the command line prints them as one line."""


class InputError(LongtakeError, ValueError):
    """A value given by the user is invalid: a prompt, a size, a duration, a path."""


class ConfigError(LongtakeError, ValueError):
    """A configuration contradicts itself."""


class ShapeError(LongtakeError, ValueError):
    """A tensor does not have the expected shape."""


class WeightsError(LongtakeError, ValueError):
    """A checkpoint is missing, damaged, or made for another network."""


class DeviceError(LongtakeError, RuntimeError):
    """A device is not available, or its memory is too small for the request."""


class MediaError(LongtakeError, OSError):
    """A picture or a video cannot be read or written."""


class TrainingError(LongtakeError, RuntimeError):
    """A training run cannot start or continue, or its results cannot be trusted."""
