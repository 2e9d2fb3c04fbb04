"""The Structs of items: requests, answers and documents of the external API."""

from datetime import datetime
from typing import Annotated, Final, cast

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, json
from msgspec.structs import force_setattr

from service.errors import FieldError, InvalidInput

TITLE_LENGTH: Final = 255
DESCRIPTION_LENGTH: Final = 10_000

Title = Annotated[str, Meta(min_length=1, max_length=TITLE_LENGTH, description="not blank, no NUL")]
Description = Annotated[str, Meta(max_length=DESCRIPTION_LENGTH, description="no NUL")]


class NewItem(Struct, frozen=True, forbid_unknown_fields=True):
    """An item as it is created, and as PUT replaces it whole."""

    title: Title
    description: Description | None = None

    def __post_init__(self) -> None:
        _check(self.title, self.description)


class ItemPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields to change. A null description clears it."""

    title: Title | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        _check(self.title, self.description)


class Item(Struct, frozen=True):
    """A stored item. `external_data` is the document of the external API, with `fetched_at`."""

    id: int
    title: str
    description: str | None
    external_data: dict[str, Raw] | None
    summary: str | None
    created_at: datetime
    updated_at: datetime

    def __post_init__(self) -> None:
        document = cast("object", self.external_data)
        if isinstance(document, str):  # from the database; numbers stay exact
            force_setattr(self, "external_data", json.decode(document, type=dict[str, Raw]))


class ItemPage(Struct, frozen=True):
    """A page of items, newest first."""

    items: list[Item]
    next_cursor: str | None


class SummarisedItem(Item, frozen=True):
    """An item with a new summary, written by `generator`: `extractive` or `model:<name>`."""

    generator: str

    @classmethod
    def of(cls, item: Item, generator: str) -> "SummarisedItem":
        return cls(*(getattr(item, name) for name in item.__struct_fields__), generator=generator)


class Post(Struct, frozen=True, rename="camel"):
    """A post of the external API (JSONPlaceholder's shape) without its further fields."""

    user_id: int
    id: int
    title: str
    body: str


def _check(title: str | UnsetType, description: str | UnsetType | None) -> None:
    """Raise `InvalidInput` for NUL characters, which Postgres cannot store, and for a blank title."""
    wrong = [
        FieldError(name, "holds a NUL character: remove it")
        for name, text in (("title", title), ("description", description))
        if isinstance(text, str) and "\0" in text
    ]
    if isinstance(title, str) and not title.strip():
        wrong.append(FieldError("title", "is blank: give at least one visible character"))
    if wrong:
        raise InvalidInput(errors=tuple(wrong))
