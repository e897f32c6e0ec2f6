"""The fields of a registry file as types: what `convert` checks by, and what the JSON Schema is generated from.

`fairway.apps.spec.AppSpec` is what comes out: absolute paths, seconds, bytes. Here things are as people write them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fairway.apps import values


def _form(name: str, **schema: Any) -> Meta:
    return Meta(extra={"form": name}, extra_json_schema=schema)


Text = Annotated[str, _form("text")]
AnyText = Annotated[str, _form("multi_line")]
Name = Annotated[str, _form("name", pattern=f"^{values.NAME}$", examples=["go-api"])]
ProcessName = Annotated[str, _form("process", pattern=f"^{values.PROCESS}$")]
Variable = Annotated[str, _form("variable", pattern=f"^{values.VARIABLE}$")]
Domain = Annotated[str, _form("domain", examples=["api.example.com"])]
UrlPath = Annotated[str, _form("url_path", pattern="^/")]
RoutePath = Annotated[str, _form("route_path", pattern="^/")]
Port = Annotated[int, Meta(ge=1, le=65535, extra={"form": "port"})]
_DurationText = Annotated[str, Meta(pattern=f"^{values.DURATION}$")]
_SizeText = Annotated[str, Meta(pattern=f"^{values.SIZE}$")]
Duration = Annotated[_DurationText | float, _form("duration", examples=["10s"])]
PositiveDuration = Annotated[_DurationText | float, _form("positive_duration", examples=["5s", "250ms", "2m"])]
Size = Annotated[_SizeText | int, _form("size", examples=["256M", "1G"])]
Cores = Annotated[float, Meta(ge=0.01, le=1024)]
Words = Annotated[str | tuple[str, ...], Meta(extra={"form": "words", "list": True})]
Wait = Annotated[_DurationText | float, _form("wait", examples=["30s"])]
Flag = Annotated[bool, _form("boolean")]
Method = Annotated[str, _form("method", pattern=f"^{values.METHOD}$", examples=["GET"])]
Token = Annotated[str, _form("token", pattern=f"^{values.FIELD}$")]
HeaderValue = Annotated[str | float, _form("header_value")]
Network = Annotated[str, _form("network", examples=["10.0.0.0/8"])]
User = Annotated[str, _form("user", pattern="^[ -9;-~]{1,100}$")]
PasswordHash = Annotated[str, _form("password_hash", pattern=f"^{values.SCRYPT}$")]
# A variable may be written as a number or as true: it is text all the same.
Value = Annotated[str | float | bool, Meta(extra={"form": "multi_line"})]


class EndpointForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where one face of an app is reached."""

    domain: Annotated[Domain | None, Meta(description="Host name; NAME.localhost where left out.")] = None
    port: Annotated[
        Port | None,
        Meta(description="Port that the Compose file publishes, or that an app which ignores $PORT insists on."),
    ] = None
    path: Annotated[RoutePath, Meta(description="Path prefix under the domain; the longest match wins.")] = "/"


class GrpcForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the gRPC face of an app is reached, through NGINX."""

    domain: Annotated[Domain | None, Meta(description="Host name; NAME.localhost where left out.")] = None
    port: Annotated[Port | None, Meta(description="Port that the app serves gRPC on.")] = None


class HealthForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How an instance is checked."""

    path: Annotated[UrlPath | None, Meta(description="HTTP path to GET; a TCP connection where left out.")] = None
    interval: Annotated[PositiveDuration, Meta(description="Time between two checks.")] = "10s"
    timeout: Annotated[PositiveDuration, Meta(description="Time that one check may take.")] = "2s"
    rise: Annotated[int, Meta(ge=1, le=100, description="Passes in a row that make an instance healthy.")] = 2
    fall: Annotated[int, Meta(ge=1, le=100, description="Failures in a row that make it unhealthy.")] = 3
    start_timeout: Annotated[PositiveDuration, Meta(description="Time that a new instance has to become healthy.")] = (
        "1m"
    )
    conditions: Annotated[
        tuple[Text, ...],
        Meta(description="Expressions such as `[STATUS] == 200`; any status below 400 where left out."),
    ] = ()


class CanaryForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A first share of the traffic for a new release, watched before the rest follows."""

    weight: Annotated[int, Meta(ge=1, le=99, description="Share of requests in percent.")] = 10
    watch: Annotated[PositiveDuration, Meta(description="Time to watch.")] = "30s"
    max_error_rate: Annotated[float, Meta(ge=0, le=1, description="Share of 5xx answers above which it is undone.")] = (
        0.05
    )
    max_latency: Annotated[
        PositiveDuration | None, Meta(description="Mean time a request above which it is undone.")
    ] = None


class DeployForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a new release replaces the old one."""

    strategy: Annotated[
        Literal["rolling", "recreate"],
        Meta(description="rolling starts the new instances beside the old; recreate holds requests, stops, starts."),
    ] = "rolling"
    grace: Annotated[Duration, Meta(description="Time between SIGTERM and SIGKILL.")] = "10s"
    drain: Annotated[Duration, Meta(description="Time that requests in flight may take before SIGTERM.")] = "10s"
    keep: Annotated[int, Meta(ge=1, le=1000, description="Releases kept for rollback.")] = 5
    canary: Annotated[CanaryForm | None, Meta(description="Watched first share of the traffic.")] = None


class LimitsForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one instance."""

    memory: Annotated[Size | None, Meta(description="Memory.")] = None
    cpus: Annotated[Cores | None, Meta(description="Cores; 0.5 is half of one.")] = None


class DoorForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the door asks of requests for an app, and does with them."""

    body_limit: Annotated[Size | None, Meta(description="Largest request body; 413 beyond it.")] = None
    header_limit: Annotated[Size | None, Meta(description="Largest request head; 431 beyond it.")] = None
    body_timeout: Annotated[Wait | None, Meta(description="Time without a byte of a request body; 408.")] = None
    upstream_timeout: Annotated[
        Wait | None, Meta(description="Time to connect, to the first byte and between two reads of an answer; 504.")
    ] = None
    rate: Annotated[
        Annotated[float, Meta(ge=0.001, le=1e9)] | None, Meta(description="Requests a second; 429 beyond them.")
    ] = None
    burst: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000_000)] | None,
        Meta(description="Requests that may come at once; one second's worth of rate where left out."),
    ] = None
    rate_by: Annotated[
        Literal["client", "route"], Meta(description="Whether rate counts by client address or all together.")
    ] = "client"
    max_requests: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None, Meta(description="Requests in flight at once; 503 beyond.")
    ] = None
    balance: Annotated[
        Literal["round_robin", "least_connections", "consistent_hash"],
        Meta(description="How an instance is chosen; consistent_hash hashes the client's address."),
    ] = "round_robin"
    sticky: Annotated[
        Token | None, Meta(description="Cookie that keeps a client on the release that it met first.")
    ] = None
    strip: Annotated[Flag, Meta(description="Remove the face's path before forwarding.")] = False
    methods: Annotated[tuple[Method, ...], Meta(description="Methods that are served; all where left out.")] = ()
    headers: Annotated[
        dict[Token, HeaderValue | None], Meta(description="Headers that a request must carry; no value means any.")
    ] = {}
    redirect: Annotated[
        tuple[Literal["https", "aliases"], ...],
        Meta(description="https sends plain requests to HTTPS; aliases sends those for an alias to the domain."),
    ] = ()
    basic_auth: Annotated[
        dict[User, PasswordHash], Meta(description="Users and the hashes that `fairway door hash` makes.")
    ] = {}
    allow: Annotated[tuple[Network, ...], Meta(description="Networks that may enter; all where left out.")] = ()
    aliases: Annotated[tuple[Domain, ...], Meta(description="Further domains.")] = ()


class EntryForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An app of Fairway's registry: one file an app in compose/app-registry."""

    name: Annotated[Name, Meta(description="Unique in the registry; names logs, metrics and releases.")]
    source: Annotated[
        Text | None, Meta(description="Source folder, relative to this file. One of source and compose_file is needed.")
    ] = None
    compose_file: Annotated[Text | None, Meta(description="Compose file, relative to this file.")] = None
    runtime: Annotated[
        Literal["auto", "process", "compose"],
        Meta(description="auto runs a native process where the source is Go, Python, Node.js or C#, else Docker."),
    ] = "auto"
    backend: Annotated[EndpointForm, Meta(description="The face that the door serves.")] = msgspec.field(
        default_factory=EndpointForm
    )
    frontend: Annotated[EndpointForm | None, Meta(description="A second face on another domain.")] = None
    grpc: Annotated[GrpcForm | None, Meta(description="A gRPC face, served by NGINX.")] = None
    command: Annotated[Words | None, Meta(description="Start command; found by itself where left out.")] = None
    build: Annotated[
        tuple[Words, ...] | None, Meta(description="Build commands that replace the ones found by themselves.")
    ] = None
    processes: Annotated[
        dict[ProcessName, Words], Meta(description="Further start commands by name, over those of a Procfile.")
    ] = {}
    env: Annotated[dict[Variable, Value], Meta(description="Variables, not secret.")] = {}
    env_file: Annotated[Text | None, Meta(description="File of variables, relative to this file; never printed.")] = (
        None
    )
    secrets: Annotated[
        tuple[Variable, ...],
        Meta(description="Names of variables taken from the environment or .fairway/secrets.env; never printed."),
    ] = ()
    replicas: Annotated[int, Meta(ge=0, le=100, description="Instances of web.")] = 1
    depends_on: Annotated[tuple[Name, ...], Meta(description="Apps that have to be healthy before this starts.")] = ()
    health: Annotated[HealthForm, Meta(description="How an instance is checked.")] = msgspec.field(
        default_factory=HealthForm
    )
    deploy: Annotated[DeployForm, Meta(description="How a new release replaces the old one.")] = msgspec.field(
        default_factory=DeployForm
    )
    limits: Annotated[LimitsForm, Meta(description="Bounds of one instance.")] = msgspec.field(
        default_factory=LimitsForm
    )
    door: Annotated[DoorForm, Meta(description="What the door asks of requests, and does with them.")] = msgspec.field(
        default_factory=DoorForm
    )
