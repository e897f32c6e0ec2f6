"""What the generator refuses."""

from __future__ import annotations

from fairway.errors import FairwayError


class NginxError(FairwayError):
    """The configuration cannot be generated, tested or put in place."""

    code = "nginx.error"


class UnsafeValueError(NginxError):
    """A value could change the meaning of the configuration around it; it is refused, never escaped."""

    code = "nginx.unsafe_value"
