"""Turn rows under headings into records for COPY, with the problem of a row's shape if there is one.

A record is `(line, quarantine_id, raw, reason, message, *cells)`, the cells in the order of `Table.columns`.
`raw` is None if headings and cells contain the same information.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from msgspec import Struct

from service.errors import InvalidInput
from service.imports.characters import IGNORABLE, SPACES
from service.imports.contracts import Dataset, DatasetColumn, Reason, fold

Record = tuple[Any, ...]
Problem = tuple[Reason, str]

COLUMNS = 1000
HEADING_CHARACTERS = 200
OWN_TEXT = "text of the row"
"""The key in `raw` of a row that could not be split into cells. No dataset has this heading."""
FORMULA = re.compile(rf"['\x00-\x1f\x7f-\x9f{SPACES}{IGNORABLE}]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet may run, wide signs too: it passes over blanks and marks before it looks. A guarded
cell is of this form as well, which makes the way back exact.
"""
_OWN_SCHEMAS = {"catalog", "data"}
"""Schemas of the datasets that Tally has by itself."""
NESTED = {"json", "array"}
"""Kinds of columns that take a list or an object of a JSON file."""
RETURNED = fold("quarantine_id")
EXPLAINED = {fold("reason"), fold("message")}
SURROGATES = re.compile("[\ud800-\udfff]")
NUMBERS_OF_THOUSANDS_OF_DIGITS = re.compile(r"[0-9][eE][+-]?[0-9]{3}|(?<![0-9])[0-9]{1000}")
NOT_FOR_POSTGRES = re.compile(r"\\u(0000|d[89a-f][0-9a-f]{2})", re.IGNORECASE)


class Pairs(list[tuple[str, Any]]):
    """A JSON object in its original order, with repeated keys. Numbers are text."""


class Number(str):
    """A JSON number with all its digits."""

    __slots__ = ()


class Doubtful(Struct, frozen=True):
    """An ambiguous row: its text if cells do not tell it, the reason, and the cells that could be split."""

    text: str
    problem: Problem
    cells: tuple[str, ...] = ()


class Table(Struct, frozen=True):
    columns: tuple[str, ...]
    records: Iterator[Record]
    present: set[str]
    """Columns of the file. For JSON they are complete after the last record."""
    returns: bool = True
    """Whether rows may name the quarantined row that they fix."""
    headings: tuple[str, ...] = ()
    """The headings of the file, one for each column. Empty if each record has its own `raw`."""
    notes: tuple[str, ...] = ()


def grid_table(
    source: str,
    dataset: Dataset,
    found: list[str],
    rows: Iterator[tuple[int, list[str] | Doubtful]],
    *,
    notes: tuple[str, ...] = (),
    has_nul: bool = False,
) -> Table:
    headings = [heading.strip() or f"column {number}" for number, heading in enumerate(found, 1)]
    check_headings(source, dataset, headings)
    known = list(map(dataset.column_of, headings))
    names = [column.name for column in known if column]
    if len(set(names)) == len(headings) and not has_nul:
        records = _plain(rows, headings, dataset, tuple(names))
        return Table(
            tuple(names),
            records,
            set(names),
            returns=False,
            headings=tuple(headings),
            notes=notes,
        )
    columns = tuple(column.name for column in dataset.columns if column.name in names)
    shape = Shaper(dataset, columns)
    shaped = (_shaped(line, row, headings, shape) for line, row in rows)
    return Table(columns, shaped, set(columns), notes=notes)


def check_headings(source: str, dataset: Dataset, headings: list[str]) -> None:
    if len(headings) > COLUMNS:
        raise InvalidInput(f"{source}: {len(headings)} columns; at most {COLUMNS} are read")
    if longer := next((heading for heading in headings if len(heading) > HEADING_CHARACTERS), None):
        raise InvalidInput(
            f"{source}: line 1: heading {longer[:40]!r}... is longer than {HEADING_CHARACTERS}"
        )
    folded = {fold(heading) for heading in headings}
    missing = [c.name for c in dataset.columns if c.needs_heading and not c.headings & folded]
    if missing:
        shown = ", ".join(heading[:40] for heading in headings[:20])
        raise InvalidInput(
            f"{source}: line 1: no heading for {', '.join(missing)} of dataset {dataset.name}; found: {shown}"
            + _other_key(dataset, missing)
        )


def _other_key(dataset: Dataset, missing: list[str]) -> str:
    """How to import files without the key of a user's table, such as a number that the table makes itself."""
    keys = [column.name for column in dataset.columns if column.key]
    if dataset.schema in _OWN_SCHEMAS or not set(keys).intersection(missing):
        return ""
    name = f"{dataset.schema}.{dataset.table}"
    return (
        f". Its rows are told apart by {', '.join(keys)}. For files without it choose a column that they "
        f"have: `tally dataset remove {dataset.name}`, `tally dataset add '{name}' --key COLUMN`"
    )


def _plain(
    rows: Iterator[tuple[int, list[str] | Doubtful]],
    headings: list[str],
    dataset: Dataset,
    columns: tuple[str, ...],
) -> Iterator[Record]:
    """Read a file in which each heading is a column. The cells are copied unchanged, in the file's order."""
    width = len(headings)
    shape = Shaper(dataset, columns)
    for line, row in rows:
        if isinstance(row, list) and len(row) == width:
            yield (line, None, None, None, None, *row)
        else:
            yield _shaped(line, row, headings, shape)


def _shaped(line: int, row: list[str] | Doubtful, headings: list[str], shape: "Shaper") -> Record:
    if isinstance(row, Doubtful):
        own = [(OWN_TEXT, row.text)] if row.text else []
        return shape(line, [*_paired(headings, row.cells), *own], row.problem)
    pairs = _paired(headings, row)
    if len(row) == len(headings):
        return shape(line, pairs)
    counted = "1 field" if len(row) == 1 else f"{len(row)} fields"
    return shape(line, pairs, ("field-count", f"{counted}, the heading has {len(headings)}"))


def _paired(headings: list[str], row: Sequence[str]) -> list[tuple[str, Any]]:
    """Name the cells. Those beyond the headings are named by their number."""
    beyond = enumerate(row[len(headings) :], len(headings) + 1)
    return [*zip(headings, row, strict=False), *((f"column {number}", cell) for number, cell in beyond)]


class Shaper:
    """Turns named values into a record of the dataset, with the problem of its shape."""

    def __init__(self, dataset: Dataset, columns: tuple[str, ...]) -> None:
        self._dataset = dataset
        self._place = {name: number for number, name in enumerate(columns)}
        self._column_of = dataset.column_of
        self._may_be_empty = not any(column.needs_value for column in dataset.columns)
        self.seen: set[str] = set()
        """Columns that any row had."""

    def __call__(
        self,
        line: int,
        pairs: list[tuple[str, Any]],
        problem: Problem | None = None,
        raw: str | None = None,
    ) -> Record:
        """`problem` is a problem found before. `raw` is the row's JSON text, if it has one."""
        returned, pairs = self._returned(pairs)
        cells: list[str | None] = [None] * len(self._place)
        has_column = False
        for name, value in pairs:
            column = self._column_of(name)
            text, wrong = _text(value)
            if column and wrong == "wrong-type" and column.kind in NESTED:
                text, wrong = exact_json(value), None
            if column is None:
                problem = problem or self._unknown(name, text)
                continue
            has_column = True
            self.seen.add(column.name)
            at = self._place[column.name]
            problem = problem or _disputed(column, cells[at], text, wrong)
            cells[at] = cells[at] or text
        if self._may_be_empty and not has_column:
            problem = problem or ("missing-value", f"the row has no column; {self._places()}")
        if len({name for name, _ in pairs}) < len(pairs):
            raw, pairs = None, self._apart(pairs)
        reason, message = problem or (None, None)
        whole = raw if raw is not None and _fits_jsonb(raw) else _raw(pairs)
        return (line, returned, whole, reason, message, *cells)

    def _returned(self, pairs: list[tuple[str, Any]]) -> tuple[str | None, list[tuple[str, Any]]]:
        """Split an exported row into its id and its cells, without the `'` that guarded formulas.

        The export explains a row behind its id. Columns of the same names stand before it.
        """
        names = [fold(name) for name, _ in pairs]
        if RETURNED not in names:
            return None, pairs
        place = names.index(RETURNED)
        own = [
            (name, value)
            for at, (name, value) in enumerate(pairs)
            if names[at] != RETURNED
            and not (names[at] in EXPLAINED and (at > place or self._column_of(name) is None))
        ]
        if returned := (_text(pairs[place][1])[0] or "").strip():
            return returned, [
                (name, unguarded(value) if isinstance(value, str) else value) for name, value in own
            ]
        return None, own

    def _apart(self, pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Give repeated names a number that no column has: Postgres keeps one value of a name."""
        found: dict[str, Any] = {}
        turns: dict[str, int] = {}
        for name, value in pairs:
            own = name
            while (own in found and found[own] != value) or (own != name and self._column_of(own)):
                turns[name] = turns.get(name, 1) + 1
                own = f"{name} ({turns[name]})"
            found[own] = value
        return list(found.items())

    def _unknown(self, name: str, text: str | None) -> Problem | None:
        if not text or not text.strip():
            return None
        return "unknown-column", f'{storable(name)[:60]}: "{text[:60]}" has no place; {self._places()}'

    def _places(self) -> str:
        return f"{self._dataset.name} has {', '.join(column.name for column in self._dataset.columns)}"


def _disputed(
    column: DatasetColumn, before: str | None, text: str | None, wrong: Reason | None
) -> Problem | None:
    if wrong == "encoding":
        return wrong, f"{column.name}: holds NUL or half a surrogate pair (shown as \u2400 or \ufffd)"
    if wrong:
        return wrong, f"{column.name}: a list or an object; one value is expected"
    if before and text and before != text:
        return "conflict", f'{column.name}: given twice, as "{before[:60]}" and "{text[:60]}"'
    return None


def guarded(cell: str) -> str:
    """Stop a spreadsheet from running a cell as a formula. `unguarded` undoes exactly this."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell, 1) else cell


def _text(value: Any) -> tuple[str | None, Reason | None]:
    """Turn a value into cell text. Return a reason too if Postgres cannot store it."""
    if value is None:
        return None, None
    if isinstance(value, bool):
        return ("true" if value else "false"), None
    if not isinstance(value, str):
        return json.dumps(plain(value)), "wrong-type"
    if "\0" in value or (not value.isascii() and SURROGATES.search(value)):
        return storable(value), "encoding"
    return value, None


def storable(text: str) -> str:
    """Replace characters that Postgres cannot store: NUL by U+2400, half a surrogate pair by U+FFFD."""
    text = text.replace("\0", "\u2400")
    return text if text.isascii() else SURROGATES.sub("\ufffd", text)


def _fits_jsonb(raw: str) -> bool:
    return not NOT_FOR_POSTGRES.search(raw) and not NUMBERS_OF_THOUSANDS_OF_DIGITS.search(raw)


def read_exact(text: str) -> Any:
    """Read JSON as the rows of a JSON file are read: objects as `Pairs`, numbers as `Number`."""
    return json.loads(text, object_pairs_hook=Pairs, parse_float=Number, parse_int=Number)


def exact_json(value: Any) -> str:
    """Write a list or an object as JSON. Numbers keep their digits, and repeated keys are kept."""
    match value:
        case Number():
            return value
        case Pairs():
            return "{" + ", ".join(f"{json.dumps(name)}: {exact_json(each)}" for name, each in value) + "}"
        case list():
            return "[" + ", ".join(map(exact_json, cast("list[Any]", value))) + "]"
        case _:
            return json.dumps(value)


def plain(value: Any) -> Any:
    """Turn `Pairs` into dicts."""
    if isinstance(value, Pairs):
        return {name: plain(inner) for name, inner in value}
    if isinstance(value, list):
        return [plain(inner) for inner in cast("list[Any]", value)]
    return value


def _raw(pairs: list[tuple[str, Any]]) -> str:
    return storable(json.dumps(plain(Pairs(pairs)), ensure_ascii=False)).replace("\\u0000", "\u2400")
