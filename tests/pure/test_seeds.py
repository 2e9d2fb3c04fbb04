"""What `seeds/README.md` says of the sample data is true, as far as no import is needed to tell."""

import csv
import json
import re
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import pytest
import sqlglot
from python_calamine import CalamineWorkbook

SEEDS = Path(__file__).parents[2] / "seeds"
REASONS = {
    "conflict", "duplicate", "field-count", "missing-value", "orphan",
    "out-of-range", "sql-refused", "unknown-column", "wrong-type",
}  # fmt: skip
CSV_FILES = ["queries", "customers", "external_interactions", "products_of_discussion"]
SHEETS = CSV_FILES[1:]


def readme_table(cells: int) -> list[list[str]]:
    lines = [line.strip("| ").split(" | ") for line in (SEEDS / "README.md").read_text().splitlines()]
    return [[cell.replace("`", "") for cell in line] for line in lines if len(line) == cells][1:]


SAID = {
    place.partition(", ")[0] + ":" + dataset: tuple(map(int, counts))
    for place, dataset, *counts in readme_table(5)
}
BAD = [(file, int(line), reason) for file, line, _, reason in readme_table(4)]


def rows(dataset: str) -> dict[int, list[str]]:
    """The rows of a CSV file by the line they start on."""
    with (SEEDS / f"{dataset}.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        found = {}
        start = 1
        for row in reader:
            found[start] = row
            start = reader.line_num + 1
        return found


def entries(file: str) -> list[dict]:
    content = json.loads((SEEDS / file).read_text())
    if isinstance(content, list):
        return content
    return content["items"] + [tile for tiles in content["layouts"].values() for tile in tiles]


def bad_lines(file: str, *reasons: str) -> set[int]:
    return {line for name, line, reason in BAD if name == file and (not reasons or reason in reasons)}


def test_rows_read_are_the_good_and_the_bad_ones():
    assert {place: good + bad for place, (_, good, bad) in SAID.items()} == {
        place: read for place, (read, _, _) in SAID.items()
    }
    assert sum(bad for _, _, bad in SAID.values()) == len(BAD)


@pytest.mark.parametrize("dataset", CSV_FILES)
def test_a_csv_file_has_as_many_rows_as_said(dataset):
    assert len(rows(dataset)) - 1 == SAID[f"{dataset}.csv:{dataset}"][0]


@pytest.mark.parametrize(
    ("file", "datasets"),
    [("metrics.json", ["metrics", "layouts"]), ("metric_records.json", ["metric_records"])],
    ids=["metrics", "metric_records"],
)
def test_a_json_file_has_as_many_rows_as_said_and_one_on_each_line(file, datasets):
    assert len(entries(file)) == sum(SAID[f"{file}:{dataset}"][0] for dataset in datasets)
    lines = (SEEDS / file).read_text().splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines if line.endswith(("}", "},")) and "{" in line] == (
        entries(file)
    )
    assert all("{" in lines[line - 1] for line in bad_lines(file))


@pytest.mark.parametrize("dataset", SHEETS)
def test_a_sheet_has_as_many_rows_as_said(dataset):
    sheet = CalamineWorkbook.from_path(SEEDS / "business.xlsx").get_sheet_by_name(dataset)
    assert len(sheet.to_python()) - 1 == SAID[f"business.xlsx:{dataset}"][0]


@pytest.mark.parametrize("dataset", CSV_FILES)
def test_short_and_long_rows_stand_on_the_lines_named(dataset):
    by_line = rows(dataset)
    width = len(by_line[1])
    assert {line for line, row in by_line.items() if len(row) != width} == (
        bad_lines(f"{dataset}.csv", "field-count")
    )
    assert bad_lines(f"{dataset}.csv") <= by_line.keys()


@pytest.mark.parametrize("dataset", CSV_FILES)
def test_empty_cells_stand_on_the_lines_named(dataset):
    assert {line for line, row in rows(dataset).items() if not all(row)} == (
        bad_lines(f"{dataset}.csv", "missing-value")
    )


@pytest.mark.parametrize("dataset", ["queries", "customers"])
def test_ids_are_unique_but_for_the_duplicates_named(dataset):
    good = {
        line: row for line, row in rows(dataset).items() if all(row) and len(row) == len(rows(dataset)[1])
    }
    seen, again = set(), set()
    for line, (key, *_) in good.items():
        (again if key in seen else seen).add(line if key in seen else key)
    assert again == bad_lines(f"{dataset}.csv", "duplicate")


def test_only_known_reasons_are_named_and_all_of_them_occur():
    assert {reason for _, _, reason in BAD} == REASONS


def test_each_query_parses_and_only_the_one_named_is_no_select():
    refused = bad_lines("queries.csv", "sql-refused")
    queries = {line: row[1] for line, row in rows("queries").items() if line > 1 and len(row) == 2 and row[1]}
    selects = {
        line: sqlglot.parse_one(sql, dialect="postgres").key == "select" for line, sql in queries.items()
    }
    assert {line for line, select in selects.items() if not select} == refused


def test_good_metrics_have_a_good_query_and_good_tiles_a_good_metric():
    lines = (SEEDS / "metrics.json").read_text().splitlines()
    good = [
        json.loads(line.rstrip(","))
        for number, line in enumerate(lines, 1)
        if line.startswith("    ") and "{" in line and number not in bad_lines("metrics.json")
    ]
    queries = {row[0] for line, row in rows("queries").items() if line not in bad_lines("queries.csv")}
    metrics = {entry["id"]: entry.get("queryId", entry.get("query_id")) for entry in good if "id" in entry}
    assert set(metrics.values()) <= queries
    assert {entry["i"] for entry in good if "i" in entry} <= metrics.keys()


def test_march_to_april_2025_has_the_approvals_that_the_page_tells_of():
    waiting = [
        record["date"]
        for record in entries("metric_records.json")
        if record.get("alert_category") == "Need approval" and "2025-03" <= record["date"] < "2025-05"
    ]
    assert len(waiting) == 27
    assert len({when[:10] for when in waiting}) == 14
    assert max(waiting) == "2025-04-30T17:35:00"
    assert sorted(Counter(waiting).values())[-2:] == [1, 2]


@pytest.mark.parametrize("dataset", SHEETS)
def test_the_good_rows_of_a_sheet_are_those_of_the_csv_file(dataset):
    """The cleaning here is as plain as the seeds allow; the import path has its own tests."""
    sheet = CalamineWorkbook.from_path(SEEDS / "business.xlsx").get_sheet_by_name(dataset).to_python()
    in_sheet = good_rows(f"business.xlsx, sheet {dataset}", dict(enumerate(sheet, 1)))
    assert in_sheet == good_rows(f"{dataset}.csv", rows(dataset))
    assert len(in_sheet) == SAID[f"business.xlsx:{dataset}"][1]


def good_rows(file, by_line):
    return {
        tuple(plain(cell) for cell in row)
        for line, row in by_line.items()
        if line > 1 and line not in bad_lines(file)
    }


def plain(cell):
    """Text without outer space or case, numbers whole, dates (text, real, serial) as ISO to the minute."""
    if isinstance(cell, date):
        return f"{cell:%Y-%m-%d %H:%M}"
    if isinstance(cell, float) and cell > 40_000:
        return f"{datetime.fromordinal(693_594 + int(cell)):%Y-%m-%d} {clock(cell % 1)}"
    text = str(cell).strip().lower()
    if day_first := re.fullmatch(r"(?:(\d\d)/)?(\d\d)[/-](\d{4})(?: (\d\d:\d\d))?", text):
        day, month, year, time = day_first.groups()
        return f"{year}-{month}-{day or '01'} {time or '00:00'}"
    return text.removesuffix(".0")


def clock(fraction):
    hours, minutes = divmod(round(fraction * 1440), 60)
    return f"{hours:02}:{minutes:02}"
