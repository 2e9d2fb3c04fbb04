"""`If-Match`: the states of a thing that a change may start from (RFC 9110, 13.1.1)."""

import re
from typing import Annotated, Final

from litestar.params import HeaderParameter
from msgspec import Struct

from service.errors import FieldError, InvalidInput
from service.http.fields import has_tag
from service.http.representation import CODINGS, tag_of_coding

IfMatch = Annotated[
    str | None, HeaderParameter(name="If-Match", description="ETag that the change starts from, else 412")
]
_TAG: Final = r'(?:W/)?"[^"]*"'
_FIELD: Final = re.compile(rf"\*|{_TAG}(?:\s*,\s*{_TAG})*")


class Precondition(Struct, frozen=True):
    """The states that a change may start from. Without a field it is every state."""

    field: str | None = None

    def allows(self, tag: str) -> bool:
        """Whether it names this strong ETag, or that of one of its compressed representations."""
        if self.field is None:
            return True
        return any(has_tag(self.field, tag_of_coding(tag, coding)) for coding in ("identity", *CODINGS))


ANY_STATE: Final = Precondition()


def read_if_match(field: str | None) -> Precondition:
    """Raises `InvalidInput` for text that is neither `*` nor a list of ETags."""
    if field is not None and not _FIELD.fullmatch(field.strip()):
        raise InvalidInput(errors=(FieldError("If-Match", "give * or quoted ETags, comma-separated"),))
    return Precondition(field)
