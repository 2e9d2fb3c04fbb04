# ruff: noqa: S608 (names and values are quoted)
"""Keep invalid rows in quarantine, bring them back to be tried again, and close those that are valid."""

from service.database.queries import literal, quoted
from service.imports.contracts import Dataset, Reference
from service.imports.plan.cells import CHECKED, GIVEN, LANDED
from service.imports.plan.rules import OF_THE_SHAPE

SHAPE_REASONS = ", ".join(map(literal, OF_THE_SHAPE))


def return_rows(dataset: Dataset, where: str) -> str:
    """Copy open quarantined rows to the landed rows, oldest first. `where` filters `q` (`quarantine.row`).

    A row of the wrong shape stays quarantined: its cells may belong to other columns.
    """
    cells = ", ".join(column.cell for column in dataset.columns)
    values = ", ".join(f"q.cells ->> {literal(column.name)}" for column in dataset.columns)
    return f"""INSERT INTO {LANDED} (line, quarantine_id, reason, message, {cells})
    SELECT q.line, q.id::text, s.reason, s.message, {values}
    FROM quarantine.row AS q
    LEFT JOIN LATERAL (
      SELECT q.reason, q.message WHERE q.reason IN ({SHAPE_REASONS})
    ) AS s ON true
    WHERE q.dataset = {literal(dataset.name)} AND q.status = 'open' AND {where}
    ORDER BY q.import_number, q.line, q.id"""


def reference_exists(dataset: Dataset) -> str:
    """The condition for orphans whose reference now exists."""
    arrived = " OR ".join(map(_arrived, dataset.references))
    return f"q.reason = 'orphan' AND ({arrived})"


def _arrived(reference: Reference) -> str:
    key = ", ".join(f"p.{quoted(name)}::text" for name in reference.to_columns)
    return f"EXISTS (SELECT FROM {reference.to} AS p WHERE concat_ws(', ', {key}) = q.waits_key)"


def refuse_unmended(dataset: Dataset) -> str:
    """Refuse rows of the wrong shape that return unchanged: their cells may belong to other columns."""
    same = " AND ".join(
        f"coalesce(q.cells ->> {literal(column.name)}, '') = coalesce(l.{column.cell}, '')"
        for column in dataset.columns
    )
    return f"""UPDATE {CHECKED} AS c
    SET problem = {GIVEN}, reason = q.reason, message = q.message
    FROM {LANDED} AS l
    JOIN quarantine.row AS q
      ON q.dataset = {literal(dataset.name)} AND q.id::text = lower(l.quarantine_id)
    WHERE c.nth = l.nth AND c.quarantine_id IS NOT NULL AND q.status = 'open'
      AND q.reason IN ({SHAPE_REASONS}) AND {same}"""


def refuse_errors(dataset: Dataset) -> str:
    """Refuse rows that return with the spreadsheet's error where they had it. A text column would take it."""
    same = " OR ".join(
        f"l.{column.cell} LIKE '#%' AND l.{column.cell} = q.cells ->> {literal(column.name)}"
        for column in dataset.columns
    )
    return f"""UPDATE {CHECKED} AS c
    SET problem = {GIVEN}, reason = q.reason, message = q.message
    FROM {LANDED} AS l
    JOIN quarantine.row AS q
      ON q.dataset = {literal(dataset.name)} AND q.id::text = lower(l.quarantine_id)
    WHERE c.nth = l.nth AND c.quarantine_id IS NOT NULL AND q.status = 'open'
      AND q.reason = 'cell-error' AND ({same})"""


def close_equal(dataset: Dataset) -> str:
    """Close open quarantined rows of this source whose equals are valid now. Parameter: source."""
    return f"""UPDATE quarantine.row AS q SET status = 'loaded', closed_at = now()
    FROM {CHECKED} AS c
    JOIN {LANDED} AS l ON l.nth = c.nth
    WHERE c.problem IS NULL AND c.quarantine_id IS NULL AND q.dataset = {literal(dataset.name)}
      AND q.source = $1 AND q.status = 'open' AND q.cells = {_cells(dataset)}"""


def quarantine(dataset: Dataset, columns: tuple[str, ...]) -> str:
    """Quarantine the rows with a problem. A row that was quarantined before is not added again.

    `columns` are in the order of the file's headings. Parameters: source, import id, import number, the
    headings (null if every row has its own `raw`).
    """
    cells = ", ".join(f"coalesce(l.{dataset.cells[name]}, '')" for name in columns)
    return f"""INSERT INTO quarantine.row AS q (dataset, id, source, line, raw, cells, reason, message,
      waits_for, waits_key, import_id, import_number)
    SELECT {literal(dataset.name)},
      md5(concat_ws(chr(31), {literal(dataset.name)}, $1::text, k.turn, k.raw))::uuid,
      $1, k.line, k.raw, k.cells, k.reason, k.message, k.waits_for, k.waits_key, $2, $3
    FROM (
      SELECT r.*, row_number() OVER (PARTITION BY r.raw ORDER BY r.nth) AS turn
      FROM (
        SELECT c.nth, c.line, c.reason, c.message, c.waits_for, c.waits_key, {_cells(dataset)} AS cells,
          coalesce(l.raw::jsonb, jsonb_object($4::text[], ARRAY[{cells}]::text[])) AS raw
        FROM {CHECKED} AS c
        JOIN {LANDED} AS l ON l.nth = c.nth
        WHERE c.problem IS NOT NULL AND c.quarantine_id IS NULL
      ) AS r
    ) AS k
    ON CONFLICT (id, dataset) DO UPDATE
    SET reason = excluded.reason, message = excluded.message,
      waits_for = excluded.waits_for, waits_key = excluded.waits_key
    WHERE q.status = 'open' AND q.reason <> excluded.reason"""


def close_returned(dataset: Dataset) -> str:
    """Mark valid rows from quarantine as loaded. A fixed row keeps its first `raw` as `original`."""
    return f"""UPDATE quarantine.row AS q
    SET status = 'loaded', closed_at = now(), raw = coalesce(l.raw::jsonb, q.raw),
      cells = {_cells(dataset)},
      original = CASE WHEN l.raw::jsonb <> q.raw THEN coalesce(q.original, q.raw) ELSE q.original END
    FROM {CHECKED} AS c
    JOIN {LANDED} AS l ON l.nth = c.nth
    WHERE c.problem IS NULL AND q.dataset = {literal(dataset.name)} AND q.id::text = lower(c.quarantine_id)"""


def _cells(dataset: Dataset) -> str:
    """The landed row `l` by column. Empty cells are left out."""
    names = ", ".join(literal(column.name) for column in dataset.columns)
    cells = ", ".join(f"l.{column.cell}" for column in dataset.columns)
    return f"jsonb_strip_nulls(jsonb_object(ARRAY[{names}], ARRAY[{cells}]))"
