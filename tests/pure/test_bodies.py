"""What a caller is told of JSON that is not what was asked for."""

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from service.errors import FieldError, InvalidInput
from service.http.bodies import decode


class Part(Struct, forbid_unknown_fields=True):
    kind: Literal["bolt", "nut"]
    size: Annotated[int, Meta(ge=1)] | None = None


class Order(Struct, forbid_unknown_fields=True):
    parts: dict[str, Part]
    first: Part | None = None
    more: list[Part] = []


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ('{"part": {}}', "part", "Object contains unknown field `part`; it takes parts, first, more"),
        (
            '{"parts": {"a": {"kind": "saw"}}}',
            "parts[...].kind",
            "Invalid enum value 'saw'; one of bolt, nut",
        ),
        (
            '{"parts": {"a": {"knd": ""}}}',
            "parts[...].knd",
            "Object contains unknown field `knd`; it takes kind, size",
        ),
        ('{"parts": {}, "first": {"kind": "x"}}', "first.kind", "Invalid enum value 'x'; one of bolt, nut"),
        (
            '{"parts": {}, "more": [{"kind": "nut"}, {"kind": "x"}]}',
            "more[1].kind",
            "Invalid enum value 'x'; one of bolt, nut",
        ),
        (
            '{"parts": {}, "first": {"kind": "nut", "size": 0}}',
            "first.size",
            "Expected `int` >= 1",
        ),
        ('{"parts": []}', "parts", "Expected `object`, got `array`"),
        ("{}", "parts", "Object missing required field `parts`"),
        ("[]", "body", "Expected `object`, got `array`"),
        ('{"parts"', "body", "Input data was truncated"),
    ],
)
def test_it_says_what_is_wrong_where_and_what_is_taken(text: str, field: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode(text.encode(), Order)
    assert [(each.field, each.message) for each in refused.value.errors] == [(field, message)]


@pytest.mark.parametrize(
    ("text", "message"),
    [(b'{"\xff": 1}', "JSON must be UTF-8"), (b"[" * 100_000, "JSON is nested too deep")],
)
def test_what_cannot_be_read_is_an_error_of_the_whole(text: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode(text, Any)
    assert refused.value.errors == (FieldError("body", message),)
