"""The protocol between the service and its reader process: a job as argument, an answer as lines of JSON.

The answer is a file. With exit status 0 its first line is `Found`, and each further line is a row: its number
in the sheet and its cells. With exit status `REFUSED` its only line is `Refusal`.
"""

from typing import Final, Literal

from msgspec import Struct

ERROR_MARK: Final = "\0"
"""Begins the text of a cell that holds an error, such as `#N/A`. No text of a workbook has it."""
REFUSED: Final = 3
COLUMNS: Final = 1000

Use = Literal["text", "date", "other", "none"]
"""How the dataset uses a column. "none" if the heading is unknown."""


class Job(Struct, frozen=True):
    """A workbook and the dataset to find in it. Names and headings are folded.

    `needed` holds one group of headings for each required column. Without `rows` the answer holds only the
    names of the visible sheets.
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
