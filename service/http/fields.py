"""Parse header fields: media types, weights, cache directives, entity tags (RFC 9110, RFC 9111)."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from service.http.short_cache import remember_short

_ITEM: Final = re.compile(r'(?:[^,"]|"[^"]*"?)+')
_MAX_AGE: Final = re.compile(r'max-age="?(\d{1,10})"?')


def media_type_of(field: str) -> str:
    """The media type without its parameters, in lower case."""
    return field.partition(";")[0].strip().lower()


def items(field: str) -> list[str]:
    """The items of a list. A comma within quotes separates nothing."""
    parts = _ITEM.findall(field) if '"' in field else field.split(",")
    return [item for part in parts if (item := part.strip())]


@remember_short
def weights(field: str) -> Mapping[str, float]:
    """The weight of each item, by its name in lower case. Parameters other than the weight are ignored."""
    found: dict[str, float] = {}
    for item in items(field.lower()):
        name, *options = (part.strip() for part in item.split(";"))
        found[name] = max(_quality(options), found.get(name, 0.0))
    return found


def _quality(options: list[str]) -> float:
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def media_weight(accept: str, media_type: str) -> float:
    """The weight of a media type in `Accept`. The most specific range decides; without one it is 0."""
    found = weights(accept)
    if not found:
        return 1.0
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((found[each] for each in ranges if each in found), 0.0)


class Directives(Struct, frozen=True):
    """A request's Cache-Control: force a new run, or accept no result older than `max_age` seconds."""

    no_cache: bool = False
    max_age: int | None = None


ANY: Final = Directives()


def directives(cache_control: str) -> Directives:
    """Read `Cache-Control`. Unknown directives are ignored."""
    if not cache_control:
        return ANY
    found = items(cache_control.lower())
    ages = [int(age[1]) for each in found if (age := _MAX_AGE.fullmatch(each))]
    return Directives("no-cache" in found, min(ages, default=None))


def has_tag(field: str, tag: str, *, weak: bool = False) -> bool:
    """Whether `If-Match`, or with `weak` comparison `If-None-Match`, names an entity tag (RFC 9110, 13.1)."""
    if field == tag:
        return True
    tags = items(field)
    if weak:
        tags, tag = [each.removeprefix("W/") for each in tags], tag.removeprefix("W/")
    return tags == ["*"] or tag in tags
