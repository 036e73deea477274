"""The errors a user can meet. Each says what was expected, what came, and what to do about it."""


class LongtakeError(Exception):
    """Base of every error longtake raises on purpose; the command line prints it as one line."""


class InputError(LongtakeError, ValueError):
    """What a person typed or passed in cannot be used: a prompt, a size, a duration, a path."""


class ConfigError(LongtakeError, ValueError):
    """A configuration contradicts itself."""


class ShapeError(LongtakeError, ValueError):
    """A tensor does not have the shape that was promised."""


class WeightsError(LongtakeError, ValueError):
    """A checkpoint is missing, damaged, or made for another network."""


class DeviceError(LongtakeError, RuntimeError):
    """A device is not there, or its memory is too small for what was asked."""


class MediaError(LongtakeError, OSError):
    """A picture or a video cannot be read or written."""


class TrainingError(LongtakeError, RuntimeError):
    """A training run cannot start, go on, or be trusted."""
