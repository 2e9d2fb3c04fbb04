# ruff: noqa: S608 (names and values are quoted)
"""The first half of a plan: SQL that cleans, checks and casts the landed cells.

Landed cells are text. `check` cleans the cells, stores the number of each row's first problem and casts the
cells of valid rows. `explain` turns problem numbers into reasons and messages. Dates are ISO or day first,
without zone, never month first. Five digits are the day number of a spreadsheet.

The temporary tables have fixed names, since one transaction runs one plan at a time. Their cells are named by
position (`c1`, `c2`, ...), so that they never collide with the tables' own columns.
"""

from itertools import product

from service.database.queries import literal
from service.imports.characters import ASCII_SPACES, IGNORABLE, UNSEEN_AT_ENDS, WIDE_SPACES
from service.imports.contracts import Dataset, DatasetColumn, Kind, Reason
from service.imports.plan.changed import changes

LANDED = "pg_temp.landed"
CHECKED = "pg_temp.checked"
CELL_BYTES = 1 << 20
GIVEN = -1
"""The problem number of a row whose reason and message are set elsewhere."""

EXPECTED: dict[Kind, str] = {
    "text": "a text", "sql": "a text", "integer": "a whole number", "number": "a number",
    "flag": "true or false", "moment": "a date (2019-10-04 09:00 or 04/10/2019 09:00, without zone)",
    "month": "a month (10-2021, 2021-10 or a date)", "uuid": "a UUID",
    "day": "a date (2019-10-04 or 04/10/2019)",
    "instant": "a time (2019-10-04T09:00:00Z or 04/10/2019 09:00, in UTC without a zone)",
    "clock": "a time of day (09:00), without a date and a zone",
    "zoned-clock": "a time of day (09:00+02), without a date",
    "array": "an array", "json": "JSON", "other": "valid",
}  # fmt: skip
TRUE = ("true", "t", "yes", "y", "1")
FALSE = ("false", "f", "no", "n", "0")
AS_WRITTEN: tuple[Kind, ...] = ("text", "json", "array", "other")
UNSHAPED: tuple[Kind, ...] = ("json", "array", "other", "instant", "clock", "zoned-clock")
"""Kinds whose value is first looked into by Postgres itself."""
SHAPE = "translate({0}, '123456789./T', '000000000-- ')"
"""Replaces each digit by 0 and each separator of a date by `-`."""

_DATE = "([0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{4})"
_TIME = r"([0-9]{1,2}:[0-9]{1,2}(:[0-9]{1,2}(\.[0-9]+)?)?|[0-9]{4}|[0-9]{6}(\.[0-9]+)?)"
"""Only seconds have a fraction: Postgres would read `12:30.5` as 12 minutes and 30.5 seconds."""
INSTANT = f"'^{_DATE}([T ]{_TIME}([^0-9.:,].*)?)?$'"
"""A date with a year of four digits, then perhaps a time and a zone. No word such as `tomorrow`."""
CLOCK = f"'^{_TIME}( ?[AaPp][Mm])?$'"
ZONED_CLOCK = f"'^{_TIME}( ?[AaPp][Mm])?( ?([+-][0-9:]+|[A-Za-z][A-Za-z0-9_/+-]*))?$'"
"""Postgres would drop a date, and the zone where the type has none."""

Rule = tuple[str, Reason, str | None]
"""Condition of the problem (SQL), reason, message. Without a message Postgres tells its own."""


def _date_shapes() -> tuple[str, ...]:
    days = [
        *("-".join(parts) for parts in product(["0000"], ["0", "00"], ["0", "00"])),
        *("-".join(parts) for parts in product(["0", "00"], ["0", "00"], ["0000"])),
    ]
    minutes = [f" {hour}:00" for hour in ("0", "00")]
    seconds = [f"{minute}:00" for minute in minutes]
    fractions = [f"{second}-{'0' * digits}" for second in seconds for digits in range(1, 7)]
    return tuple(day + time for day in days for time in ["", *minutes, *seconds, *fractions])


SERIAL_SHAPES = ("00000", *("00000-" + "0" * digits for digits in range(1, 16)))
GROUPED = r"'^[+-]?[1-9][0-9]{0,2}\.000$'"
"""A point before three zeros. The zeros may be decimals or thousands."""
NUMBER_SHAPES = tuple(
    "".join(parts)
    for parts in product(("", "-", "+"), ("", "."), ("", *map("".join, product("eE", ["", *"+-"]))))
)


WIDE = literal(WIDE_SPACES)


def trimmed(text: str) -> str:
    """Trim invisible characters from both ends of an expression."""
    return f"btrim({text}, {literal(UNSEEN_AT_ENDS)})"


def create_landed(dataset: Dataset) -> str:
    cells = ", ".join(f"{column.cell} text" for column in dataset.columns)
    return f"""CREATE TEMPORARY TABLE landed (
      nth bigint GENERATED ALWAYS AS IDENTITY, line bigint, quarantine_id text, raw text, reason text,
      message text, {cells}
    ) ON COMMIT DROP"""


def check(dataset: Dataset) -> str:
    """Create the table of checked rows: typed cells if `problem` is null, else the number of the problem.

    `OFFSET 0` stops the planner from repeating a subquery's expressions at every use.
    """
    columns = dataset.columns
    cleaned = ", ".join(f"{_cleaned(column)} AS {column.cell}" for column in columns)
    shaped = ", ".join(f"{_shaped(column)} AS {column.cell}" for column in columns)
    typed = ", ".join(f"{_typed(column)} AS {column.cell}" for column in columns)
    sizes = ", ".join(f"octet_length({column.cell}) AS {_size(column)}" for column in columns)
    cases = " ".join(f"WHEN {test} THEN {number}" for number, test, _, _ in _problems(dataset))
    return f"""CREATE TEMPORARY TABLE checked ON COMMIT DROP AS
    SELECT nth, line, quarantine_id, problem, NULL::text AS reason, NULL::text AS message,
      NULL::text AS waits_for, NULL::text AS waits_key, false AS repeated, {typed}
    FROM (
      SELECT nth, line, quarantine_id, {", ".join(column.cell for column in columns)},
        CASE WHEN reason IS NOT NULL THEN {GIVEN} {cases} END AS problem
      FROM (
        SELECT nth, line, quarantine_id, reason, {", ".join(map(_size, columns))}, {shaped}
        FROM (
          SELECT nth, line, quarantine_id, reason, {sizes}, {cleaned} FROM {LANDED} OFFSET 0
        ) AS cleaned OFFSET 0
      ) AS shaped OFFSET 0
    ) AS told"""


def read_keys(dataset: Dataset) -> str:
    """The keys of the rows with a problem, as far as each of their cells can be read."""
    columns = [column for column in dataset.columns if column.key]
    cleaned = ", ".join(f"{_cleaned(column)} AS {column.cell}" for column in columns)
    shaped = ", ".join(f"{_shaped(column)} AS {column.cell}" for column in columns)
    typed = ", ".join(
        f"CASE WHEN {_valid(column, column.cell)} THEN {_value(column)} END AS {column.cell}"
        for column in columns
    )
    return f"""SELECT {typed}
    FROM (
      SELECT {shaped}
      FROM (
        SELECT {cleaned} FROM {LANDED}
        WHERE nth IN (SELECT nth FROM {CHECKED} WHERE problem IS NOT NULL) OFFSET 0
      ) AS cleaned OFFSET 0
    ) AS shaped"""


def explain(dataset: Dataset) -> str:
    """Set reason and message of each row with a problem number of `check`."""
    problems = _problems(dataset)
    reasons = " ".join(f"WHEN {number} THEN {literal(reason)}" for number, _, reason, _ in problems)
    messages = " ".join(f"WHEN {number} THEN {message}" for number, _, _, message in problems)
    return f"""UPDATE {CHECKED} AS c
    SET reason = CASE c.problem {reasons} ELSE l.reason END,
      message = CASE c.problem {messages} ELSE l.message END
    FROM {LANDED} AS l
    WHERE c.nth = l.nth AND c.problem IS NOT NULL AND c.reason IS NULL"""


def _problems(dataset: Dataset) -> list[tuple[int, str, Reason, str]]:
    """Number, condition, reason and message (an expression over the landed row `l`) of each problem."""
    found: list[tuple[str, Reason, str]] = []
    for column in dataset.columns:
        shown = literal(f'{column.name}: "') + f" || left(l.{column.cell}, 60) || '\" '"
        for test, reason, says in _rules(column, column.cell):
            if reason == "missing-value":
                message = literal(f"{column.name}: {says}")
            else:
                message = f"{shown} || {_told_by_postgres(column) if says is None else literal(says)}"
            found.append((test, reason, message))
    return [(number, *rule) for number, rule in enumerate(found, 1)]


def _rules(column: DatasetColumn, cell: str) -> list[Rule]:
    """The rules of a column. The first match counts, so a rule may rely on the rules before it."""
    rules: list[Rule] = [
        (f"{_size(column)} > {CELL_BYTES}", "too-large", f"... has more than {CELL_BYTES} bytes")
    ]
    if column.needs_value:
        rules.append((f"{cell} IS NULL", "missing-value", "a value is needed and the cell is empty"))
    rules += _type_rules(column, cell) + _bounds(column, cell)
    if column.declared and not (column.known and (column.kind in {"text", "uuid"} or column.choices)):
        reason: Reason = "wrong-type" if column.kind in UNSHAPED else "out-of-range"
        rules.append((f"NOT {_valid(column, cell)}", reason, None))
    if column.declared:
        rules += changes(column, cell)
    return rules


def _valid(column: DatasetColumn, cell: str) -> str:
    """Whether Postgres takes the cell for the column's type."""
    if column.known:
        return f"pg_input_is_valid({cell}, {literal(column.type)})"
    return f"({cell} IS NULL OR imports.input_error({cell}, {literal(column.type)}) IS NULL)"


def _told_by_postgres(column: DatasetColumn) -> str:
    cell = trimmed(f"l.{column.cell}")
    if column.known:
        says = f"(pg_input_error_info({cell}, {literal(column.type)})).message"
    else:
        says = f"imports.input_error({cell}, {literal(column.type)})"
    return f"'is refused: ' || coalesce({says}, {literal(f'it is no {column.type}')})"


def _type_rules(column: DatasetColumn, cell: str) -> list[Rule]:  # noqa: PLR0911 (one for each kind)
    wrong = f"is not {EXPECTED[column.kind]}"
    match column.kind:
        case "integer":
            return [
                (
                    f"{cell} LIKE '%.000' AND {cell} ~ {GROUPED}",
                    "wrong-type",
                    "may be thousands or decimals: write it without a point",
                ),
                (f"translate({cell}, '0123456789', '') NOT IN ('', '-', '+')", "wrong-type", wrong),
                (
                    f"translate(substr({cell}, 2), '0123456789', '') <> '' OR {cell} IN ('-', '+')",
                    "wrong-type",
                    wrong,
                ),
                *_fits(column, f"NOT pg_input_is_valid({cell}, 'bigint')"),
            ]
        case "number":
            digits = f"translate({cell}, '0123456789', '')"
            return [
                (f"{digits} <> ALL ({_array(NUMBER_SHAPES)})", "wrong-type", wrong),
                (f"NOT pg_input_is_valid({cell}, 'numeric')", "wrong-type", wrong),
                *_fits(column, f"length({cell}) > 60 OR NOT pg_input_is_valid({cell}, 'numeric(60, 20)')"),
            ]
        case "flag":
            return [(f"lower({cell}) <> ALL ({_array(TRUE + FALSE)})", "wrong-type", wrong)]
        case "moment" | "month" | "day":
            whole = f"{cell}::timestamp <> date_trunc('day', {cell}::timestamp)"
            return [
                (f"{SHAPE.format(cell)} <> ALL ({_array(_date_shapes())})", "wrong-type", wrong),
                (f"NOT pg_input_is_valid({cell}, 'timestamp')", "wrong-type", wrong),
                *([(whole, "wrong-type", "has a time of day")] if column.kind == "day" else ()),
            ]
        case "instant":
            return [(f"{cell} !~ {INSTANT}", "wrong-type", wrong)]
        case "clock" | "zoned-clock":
            shape = CLOCK if column.kind == "clock" else ZONED_CLOCK
            return [(f"{cell} !~ {shape}", "wrong-type", wrong)]
        case "uuid":
            return [(f"NOT pg_input_is_valid({cell}, 'uuid')", "wrong-type", wrong)]
        case _:
            return []


def _fits(column: DatasetColumn, test: str) -> list[Rule]:
    """A bound of our own for built-in datasets. A table of the user has its type's."""
    return [] if column.declared else [(test, "out-of-range", "has too many digits")]


def _bounds(column: DatasetColumn, cell: str) -> list[Rule]:
    rules: list[Rule] = []
    if column.least is not None:
        rules.append((f"{cell}::numeric < {column.least}", "out-of-range", f"is below {column.least}"))
    if column.most is not None:
        rules.append((f"{cell}::numeric > {column.most}", "out-of-range", f"is above {column.most}"))
    if column.longest is not None:
        says = f"has more than {column.longest} characters"
        rules.append((f"length({cell}) > {column.longest}", "too-large", says))
    if column.choices:
        says = f"is not one of {', '.join(column.choices)}"
        rules.append((f"{cell} <> ALL ({_array(column.choices)})", "out-of-range", says))
    return rules


def _array(words: tuple[str, ...]) -> str:
    return f"ARRAY[{', '.join(map(literal, words))}]"


def _size(column: DatasetColumn) -> str:
    return f"{column.cell}_size"


def _cleaned(column: DatasetColumn) -> str:
    cell = column.cell
    if column.kind == "sql":
        return f"nullif({trimmed(cell)}, '')"
    if column.vocabulary:
        seen = f"regexp_replace({cell}, '[{IGNORABLE}]+', '', 'g')"
        cleaned = f"translate(normalize({seen}, NFC), {WIDE}, {' ' * len(WIDE_SPACES)!r})"
    elif column.kind in AS_WRITTEN:
        cleaned = f"normalize({cell}, NFC)"
    else:
        cleaned = f"translate(normalize({cell}, NFC), {WIDE}, {' ' * len(WIDE_SPACES)!r})"
    one_byte_each = f"octet_length({cell}) = length({cell})"  # such text holds no character to look for
    narrow = f"btrim({cell}, {literal(ASCII_SPACES)})"
    return f"nullif(CASE WHEN {one_byte_each} THEN {narrow} ELSE {trimmed(cleaned)} END, '')"


def _shaped(column: DatasetColumn) -> str:
    """Rewrite a cleaned cell so that its type can be cast."""
    cell = column.cell
    shape = SHAPE.format(cell)
    seconds = f"make_interval(secs => round({cell}::numeric * 86400)::float8)"
    serial = (
        f"WHEN {shape} = ANY ({_array(SERIAL_SHAPES)}) AND {cell} NOT LIKE '%/%' "
        f"THEN (timestamp '1899-12-30' + {seconds})::text"
    )
    match column.kind:
        case "integer":
            whole = f"{cell} LIKE '%.%' AND {cell} !~ {GROUPED}"
            return rf"CASE WHEN {whole} THEN regexp_replace({cell}, '\.0*$', '') ELSE {cell} END"
        case "moment" | "day":
            return f"CASE {serial} ELSE {cell} END"
        case "array":
            items = f"json_array_elements_text({cell}::json) AS item(value)"
            return f"""CASE WHEN {cell} LIKE '[%' AND pg_input_is_valid({cell}, 'jsonb')
            THEN (SELECT coalesce(array_agg(item.value)::text, '{{}}') FROM {items}) ELSE {cell} END"""
        case "month":
            return f"""CASE {serial}
            WHEN {shape} IN ('0-0000', '00-0000') THEN '01-' || translate({cell}, './', '--')
            WHEN {shape} IN ('0000-0', '0000-00') THEN translate({cell}, './', '--') || '-01'
            ELSE {cell} END"""
        case _:
            return cell


def _typed(column: DatasetColumn) -> str:
    return f"CASE WHEN problem IS NULL THEN {_value(column)} END"


def _value(column: DatasetColumn) -> str:
    """The value of a valid cell."""
    cell = column.cell
    match column.kind:
        case "flag":
            value = f"(lower({cell}) = ANY ({_array(TRUE)}))::{column.type}"
        case "month":
            value = f"date_trunc('month', {cell}::timestamp)::date"
        case "day":
            value = f"({cell}::timestamp)::date::{column.type}"
        case _:
            value = f"{cell}::{column.type}"
    if column.default is not None and not column.declared:
        value = f"coalesce({value}, {column.default})"
    return value
