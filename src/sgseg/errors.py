"""The errors that a user can cause and cure; the command line prints each as one line."""


class SGSegError(Exception):
    """Something the user can put right. The message names the culprit and the cure."""


class ReportError(SGSegError, ValueError):
    """A report that is not understood, or that contradicts itself."""


class ImageError(SGSegError, ValueError):
    """A file that is not a readable chest X-ray."""


class NotApplicableError(ImageError):
    """A picture, or another document, that is not a frontal chest X-ray.

    Attributes:
        reason: what says so.
    """

    def __init__(self, name: str, reason: str, cure: str = "--force (force=True) reads it anyhow") -> None:
        super().__init__(f"{name} is not a frontal chest X-ray: {reason}; {cure}")
        self.reason = reason


class FormatError(ImageError):
    """A file of a kind that is not read."""


class TooLargeError(ImageError):
    """A picture of more pixels than are read."""


class DataError(SGSegError, ValueError):
    """A data set that is incomplete or inconsistent."""


class ConfigError(SGSegError, ValueError):
    """A configuration that does not make sense."""


class MissingExtraError(SGSegError, ImportError):
    """An optional part of the package that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        cure = f"pip install 'sgseg[{extra}]', or '.[{extra}]' in a copy of its repository"
        super().__init__(f"{what} needs an optional part of SGSeg: {cure}")
