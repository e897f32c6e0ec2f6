"""The door's own errors."""

from __future__ import annotations

from fairway.errors import FairwayError


class ProxyError(FairwayError):
    """Base of the errors of `fairway.proxy`."""

    code = "proxy.error"


class RouteError(ProxyError):
    """A route table that the door refuses whole; the table in force stays in force."""

    code = "proxy.route_invalid"
    default_hint = "correct the named route and push the whole table again"


class ControlError(ProxyError):
    """The control socket of a door could not be reached, or answered with a refusal."""

    code = "proxy.control"
    default_hint = "check that the door runs and that the socket path is the one it was started with"


class OptionError(ProxyError):
    """A start option of the door that cannot be used."""

    code = "proxy.option_invalid"


class CertificateError(ProxyError):
    """A certificate or key that cannot be loaded, made or obtained."""

    code = "proxy.certificate"
