"""What the service and its reader process tell each other: a job as an argument, an answer as lines of JSON.

The answer is a file. With exit status 0 its first line is `Found`, and each further line is a row: its number
in the sheet and its cells. With exit status `REFUSED` its only line is `Refusal`.
"""

from typing import Final, Literal

from msgspec import Struct

REFUSED: Final = 3
COLUMNS: Final = 1000

Use = Literal["text", "date", "other", "none"]
"""What the dataset takes a column for; "none" if it does not know the heading."""


class Job(Struct, frozen=True):
    """A workbook and the dataset that is looked for in it; names and headings are folded.

    `needed` holds one group of headings for each column that a sheet must have. Without `rows` only the names
    of the visible sheets are wanted.
    """

    path: str
    bytes_limit: int
    cpu_s: int
    memory_mb: int
    dataset: str = ""
    headings: dict[str, Use] = {}
    needed: tuple[tuple[str, ...], ...] = ()
    rows: bool = True


class Found(Struct, frozen=True):
    visible: list[str]
    sheet: str = ""
    headings: list[str] = []


class Refusal(Struct, frozen=True):
    too_large: bool
    detail: str
