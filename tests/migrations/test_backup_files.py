"""Files that `tally restore` cannot trust: one sentence each, and the database stays as it was."""

import gzip
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from service.backup.restore import Restored
from service.database.gateway import Database
from service.errors import Stop
from tests.migrations.backups import exported, restored, run, state, value


def _signed(lines: list[bytes]) -> bytes:
    """A file of these lines whose last line is right."""
    body = b"".join(lines)
    return body + json.dumps({"rows": {}, "sha256": sha256(body).hexdigest()}).encode() + b"\n"


def _flipped(content: bytes) -> bytes:
    middle = content.index(b"Zwei")
    return content[:middle] + b"X" + content[middle + 1 :]


def _with_header(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    first, *others = content.splitlines(keepends=True)
    header = json.loads(first)
    change(header)
    return _signed([json.dumps(header).encode() + b"\n", *others[:-1]])


def _line(table: str, **row: object) -> bytes:
    return json.dumps({"table": table, "row": row}).encode() + b"\n"


def _added(content: bytes, line: bytes) -> bytes:
    return _signed([*content.splitlines(keepends=True)[:-1], line])


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "no export of Tally: it is empty"),
    "something else": (lambda _: b"id,sql\n1,2\n", "no export of Tally"),
    "another JSON": (lambda _: b"[]\n", "no export of Tally"),
    "compressed": (gzip.compress, "compressed: gunzip"),
    "only its first line": (lambda whole: whole.splitlines(keepends=True)[0], "cut off: line 1 is not"),
    "without its last line": (lambda whole: whole[: whole[:-1].rindex(b"\n") + 1], "cut off: line"),
    "cut in a line": (lambda whole: whole[: len(whole) // 2], "cut off: line"),
    "cut in its last line": (lambda whole: whole[:-20], "cut off: line"),
    "a changed letter": (_flipped, "damaged: its lines do not give the checksum"),
    "a missing line": (lambda whole: b"".join(whole.splitlines(keepends=True)[::2]), "cut off|damaged"),
    "twice": (lambda whole: whole * 2, "damaged"),
    "a newer format": (
        lambda whole: _with_header(whole, lambda header: header.update(tally_export=2, tally="9.1")),
        "has format 2, of Tally 9.1; this Tally .* reads format 1: upgrade it first",
    ),
    "a newer column": (
        lambda whole: _with_header(whole, lambda header: header["columns"]["catalog.query"].append("mood")),
        r"holds catalog\.query\.mood, which this database does not have: upgrade",
    ),
    "a newer table": (
        lambda whole: _with_header(whole, lambda header: header["columns"].update({"app.robot": ["id"]})),
        r"holds app\.robot, which this database does not have",
    ),
    "a table that is none of its": (
        lambda whole: _with_header(whole, lambda header: header["columns"].update({"app.audit": ["id"]})),
        r"holds app\.audit, which",
    ),
    "no columns": (lambda whole: _with_header(whole, lambda header: header.pop("columns")), "line 1: "),
    "a row of no table": (lambda whole: _added(whole, _line("x.y", id=1)), r"line \d+: x\.y is not in"),
    "a row that is none": (lambda whole: _added(whole, b"{}\n"), r"line \d+: Object missing"),
    "a wrong value": (
        lambda whole: _added(whole, _line("app.item", id="x")),
        r"lines \d+ to \d+: app\.item refuses a row: invalid input syntax for type bigint",
    ),
    "a row that refers to nothing": (
        lambda whole: _added(whole, _line("catalog.origin", metric_id=str(uuid4()), version=1, prompt="a",
                                          generator="rules", created_at="2025-01-01")),
        r"origin refuses a row: .*origin_metric_id_fkey.* is not present",
    ),
    "a repeated row": (
        lambda whole: _added(whole, _line("catalog.query", id="q1", sql="", trusted=False, created_at="now",
                                          updated_at="now")),
        r"catalog\.query refuses a row: duplicate key",
    ),
    "a NUL": (
        lambda whole: _added(whole, _line("catalog.query", id="\0")),
        "refuses a row: unsupported Unicode",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_file_that_is_not_whole_is_one_sentence_and_changes_nothing(
    filled: Database, target: Database, kind: str
):
    spoil, sentence = BROKEN[kind]
    content = spoil(await exported(filled))
    before = await state(target)
    with pytest.raises(Stop, match=sentence) as stop:
        await restored(target, content)
    assert stop.value.exit_code == 2
    assert "\n" not in str(stop.value)
    assert str(stop.value).startswith("a.jsonl")
    assert await state(target) == before


async def test_a_file_cut_anywhere_is_refused(filled: Database, target: Database):
    content = await exported(filled)
    for end in range(0, len(content) - 1, 97):
        with pytest.raises(Stop, match=r"cut off|no export of Tally"):
            await restored(target, content[:end])


async def test_a_table_that_is_newer_than_the_file_counts_as_empty(filled: Database, target: Database):
    first, *others = (await exported(filled)).splitlines(keepends=True)
    header = json.loads(first)
    del header["columns"]["app.item"]
    rows = [line for line in others[:-1] if b'"app.item"' not in line]
    content = _signed([json.dumps(header).encode() + b"\n", *rows])
    await run(target, "INSERT INTO app.item (title) VALUES ('mine')")
    with pytest.raises(Stop, match=r"1 in app\.item"):
        await restored(target, content)
    done = await restored(target, content, replace=True)
    assert [each for each in done.tables if each.table == "app.item"] == [Restored("app.item", 1, 0)]
    assert await value(target, "SELECT count(*) FROM app.item") == 0


async def test_an_older_file_takes_the_defaults_of_newer_columns(filled: Database, target: Database):
    first, *others = (await exported(filled)).splitlines(keepends=True)
    header = json.loads(first)
    for table in ("catalog.metric", "catalog.metric_version"):
        header["columns"][table].remove("window")
    await restored(target, _signed([json.dumps(header).encode() + b"\n", *others[:-1]]))
    assert await value(target, "SELECT string_agg(\"window\", ' ') FROM catalog.metric") == "auto auto"


FIRST = Path(__file__).with_name("export_1.jsonl").read_bytes()
"""What the first `tally export` wrote of `backup_sample.sql`. Never edited: each later Tally must read it."""


async def test_a_file_of_the_first_format_is_restored(target: Database):
    done = await restored(target, FIRST)
    rows = json.loads(FIRST.splitlines()[-1])["rows"]
    assert {each.table: each.restored for each in done.tables if each.table in rows} == rows
    title = "SELECT title FROM catalog.metric WHERE query_id = 'q2'"
    assert await value(target, title) == "Zwei"
    default = "SELECT parameters #>> '{n,default}' FROM catalog.metric WHERE query_id = 'q1'"
    assert await value(target, default) == "123456789012345678901234567890.1234567890"
    assert await value(target, "SELECT raw::text || original::text FROM quarantine.orders") == "nullnull"
