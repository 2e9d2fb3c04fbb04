"""What commands print: tables on a terminal, JSON lines elsewhere, CSV if it is asked for."""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

import click
from msgspec import Raw

from service.http import bodies

csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")


def _decoded(document: bytes | Raw) -> Any:
    """JSON whose numbers are shown as they were written."""
    return bodies.decode_exact(bytes(document), Raw)


def on_terminal() -> bool:
    """Whether a person reads our output."""
    return sys.stdout is not None and sys.stdout.isatty()  # pyright: ignore[reportUnnecessaryComparison] (None if it was closed)


def lines(found: Iterable[object]) -> list[Raw]:
    """Each value as JSON, for `show`."""
    return [Raw(bodies.encode(each)) for each in found]


def show(rows: Sequence[Raw], *columns: str, as_csv: bool) -> None:
    """Print JSON objects: these columns of them in a table or in CSV, or each whole as a line."""
    if as_csv:
        write_csv(columns, [_cells(row, columns) for row in rows])
    elif on_terminal():
        show_table(columns, [_cells(row, columns) for row in rows])
    else:
        for row in rows:
            write(bytes(row) + b"\n")


def show_object(document: bytes) -> None:
    """Print one JSON object: a line for each member on a terminal, else one line."""
    if not on_terminal():
        write(document.rstrip(b"\n") + b"\n")
        return
    members: dict[str, Any] = _decoded(document)
    width = max(map(len, members), default=0)
    for name, value in members.items():
        first, *others = _text(value).splitlines() or [""]
        print(f"{click.style(name.ljust(width), bold=True)}  {_shown(first)}")
        for line in others:
            print(f"{' ' * width}  {_shown(line)}")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. Control characters in values cannot reach the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(Text(_shown(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    Console(highlight=False).print(table)


def write_csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    write(text.getvalue().encode())


def write(content: bytes) -> None:
    """Write bytes to standard output, after what was printed before."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def show_answer(document: bytes, *, as_csv: bool) -> None:
    """Print the answer of a prompt: its SQL and rows on a terminal, else all of it as a line, or CSV."""
    answer: dict[str, Any] = _decoded(document)
    if as_csv:
        write_csv(*_records(answer))
    elif on_terminal():
        print(click.style(_shown(answer["title"]), bold=True))
        print(*map(_shown, answer["sql"].splitlines()), sep="\n")
        results_table(document)
    else:
        write(document + b"\n")


def results_table(document: bytes) -> None:
    """Print the records of a result as a table."""
    result: dict[str, Any] = _decoded(document)
    show_table(*_records(result))
    if result.get("truncated"):
        sys.stderr.write(f"tally: only the first {len(result['records'])} rows (ROW_LIMIT)\n")


def show_history(items: Sequence[Raw], *, as_csv: bool) -> None:
    """Print the results of a history: in a table or CSV what changed and why, in JSON each whole."""
    if not as_csv and not on_terminal():
        show(items, as_csv=False)
        return
    columns = ("as_of", "rows", "added", "removed", "changed", "causes")
    rows = [_history_cells(_decoded(item)) for item in items]
    if as_csv:
        write_csv(columns, rows)
    else:
        show_table(columns, rows)


def _history_cells(item: dict[str, Any]) -> list[str]:
    difference: dict[str, Any] | None = item["difference"]
    totals: dict[str, int] = difference["totals"] if difference else {}
    counts = [_text(totals.get(name)) for name in ("added", "removed", "changed")]
    causes = "; ".join(_cause(cause) for cause in item["causes"])
    return [item["as_of"], _text(item["row_count"]), *counts, causes]


def _cause(cause: dict[str, Any]) -> str:
    """A cause in words."""
    match cause["kind"]:
        case "import":
            text = f"import of {cause['source']} into {cause['dataset']} by {cause['actor']}"
        case "commit":
            author = cause["actor"] and f"{cause['action']} by {cause['actor']}"
            who = author or (f"transaction {cause['transaction']}" if cause["transaction"] else "unannounced")
            text = f"{', '.join(cause['tables'])} changed ({who})"
        case "definition":
            text = f"metric changed to version {cause['version']} by {cause['actor'] or 'nobody known'}"
        case "migration":
            text = f"migration {cause['id']}"
        case "redefinition":
            text = f"{', '.join(cause['names'])} redefined"
        case "time":
            text = "time passed"
        case "unwatched":
            text = f"unknown: {', '.join(cause['tables'])} not watched"
        case _:
            text = f"unknown: {cause['why']}"
    return text


def _records(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows."""
    names: list[str] = [column["name"] for column in result["columns"]]
    return names, [[_text(record.get(name)) for name in names] for record in result["records"]]


def _cells(row: Raw, columns: Sequence[str]) -> list[str]:
    found: dict[str, Any] = _decoded(row)
    return [_text(found.get(name)) for name in columns]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(each, str) for each in cast("list[object]", value)):
        return " ".join(cast("list[str]", value))
    return value if isinstance(value, str) else bodies.encode(value).decode()


def _shown(text: str) -> str:
    """The text for a terminal: nothing in it moves the cursor."""
    from service.observe.log import escape

    return escape(text)
