"""Sites, the resources that flow in and out of them, and which flows fit together. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

MAX_DISTANCE_KM = 50.0
_EARTH_KM = 6371.0
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A place; latitude and longitude in degrees."""

    id: Text
    name: Text
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)]


class ResourceFlow(msgspec.Struct, frozen=True, kw_only=True):
    """So much of a resource, a day, that a site gives off (``output``) or needs (``input``)."""

    id: Text
    site: Site
    direction: Literal["input", "output"]
    resource: Text
    quantity: Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """An output that can serve an input; `score` from 0 (barely) to 1 (same amount, same place)."""

    output: str
    input: str
    distance_km: float
    score: float


def compute_matches(flow: ResourceFlow, others: Iterable[ResourceFlow]) -> list[Match]:
    """Return the matches of one flow with others, best first.

    Matching flows carry the same resource in opposite directions between two sites at most 50 km apart. The score is
    the share of the amount that is served, times how near it is.
    """
    found = []
    for other in others:
        if other.resource != flow.resource or other.direction == flow.direction or other.site.id == flow.site.id:
            continue
        distance = distance_km(flow.site, other.site)
        if distance > MAX_DISTANCE_KM:
            continue
        served = min(flow.quantity, other.quantity) / max(flow.quantity, other.quantity)
        giver, taker = (flow, other) if flow.direction == "output" else (other, flow)
        score = round(served * (1 - distance / MAX_DISTANCE_KM), 6)
        found.append(Match(output=giver.id, input=taker.id, distance_km=round(distance, 3), score=score))
    return sorted(found, key=lambda match: (-match.score, match.output, match.input))


def distance_km(one: Site, other: Site) -> float:
    """Return the great-circle distance. Source: the haversine formula."""
    latitude = math.radians(other.latitude - one.latitude)
    longitude = math.radians(other.longitude - one.longitude)
    cosines = math.cos(math.radians(one.latitude)) * math.cos(math.radians(other.latitude))
    half = math.sin(latitude / 2) ** 2 + cosines * math.sin(longitude / 2) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(half)))  # rounding may lead above 1 on the far side
