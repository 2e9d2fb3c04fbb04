# ruff: noqa: S608 (names and values are quoted)
"""Store the valid rows: insert, update, number facts, mark what a mirrored file lacks."""

from service.database.queries import literal, quoted
from service.imports.contracts import Dataset
from service.imports.plan.cells import CHECKED, read_keys
from service.imports.plan.rules import key_equals_stored

FACTS = "pg_temp.facts"
SAME_FACT = "t.content_hash = f.content_hash AND t.occurrence = f.occurrence"


def update_changed(dataset: Dataset, present: set[str]) -> str:
    """Update stored rows from the file. `present` are the columns of the file."""
    values = [column for column in dataset.columns if not column.key and column.name in present]
    assigned = [f"{quoted(column.name)} = c.{column.cell}" for column in values]
    differs = [f"t.{quoted(column.name)} IS DISTINCT FROM c.{column.cell}" for column in values]
    if dataset.mirrored:
        assigned.append("gone_at = NULL")
        differs.append("t.gone_at IS NOT NULL")
    further = [dataset.on_update] if dataset.on_update else []
    return f"""UPDATE {dataset.target} AS t SET {", ".join(assigned + further)}
    FROM {CHECKED} AS c
    WHERE c.problem IS NULL AND NOT c.repeated AND {key_equals_stored(dataset)}
      AND ({" OR ".join(differs)})"""


def insert_new(dataset: Dataset) -> str:
    columns, cells = _columns_and_cells(dataset)
    key = ", ".join(map(quoted, dataset.key))
    return f"""INSERT INTO {dataset.target} ({columns})
    SELECT {cells} FROM {CHECKED} WHERE problem IS NULL AND NOT repeated
    ON CONFLICT ({key}) DO NOTHING"""


def number_facts(dataset: Dataset) -> str:
    """Identify each valid fact by the hash of its content and the number of its occurrence.

    Facts from quarantine are numbered after all stored facts and all facts of the file.
    """
    _, cells = _columns_and_cells(dataset)
    content = ", ".join(
        f"{literal(c.name)}, {'trim_scale(' if c.kind == 'number' else '('}{c.cell})" for c in dataset.columns
    )
    return f"""CREATE TEMPORARY TABLE facts ON COMMIT DROP AS
    SELECT f.*, CASE WHEN f.back THEN f.turn - f.plain + greatest(f.plain, (
        SELECT max(t.occurrence) FROM {dataset.target} AS t WHERE t.content_hash = f.content_hash
      )) ELSE f.turn END::integer AS occurrence
    FROM (
      SELECT nth, {cells}, content_hash, back,
        row_number() OVER (PARTITION BY content_hash ORDER BY back, nth) AS turn,
        count(*) FILTER (WHERE NOT back) OVER (PARTITION BY content_hash) AS plain
      FROM (
        SELECT *, quarantine_id IS NOT NULL AS back,
          md5(jsonb_strip_nulls(jsonb_build_object({content}))::text)::uuid AS content_hash
        FROM {CHECKED} WHERE problem IS NULL AND NOT repeated
      ) AS h
    ) AS f"""


def insert_facts(dataset: Dataset) -> str:
    columns, cells = _columns_and_cells(dataset)
    return f"""INSERT INTO {dataset.target} ({columns}, content_hash, occurrence)
    SELECT {cells}, content_hash, occurrence FROM {FACTS} ORDER BY nth
    ON CONFLICT (content_hash, occurrence) DO NOTHING"""


def unmark_facts(dataset: Dataset) -> str:
    """Unmark facts that were gone and are in the file again."""
    return f"""UPDATE {dataset.target} AS t SET gone_at = NULL FROM {FACTS} AS f
    WHERE t.gone_at IS NOT NULL AND {SAME_FACT}"""


def mark_gone(dataset: Dataset) -> str:
    """Mark stored rows that the file lacks as gone. An invalid row of the file still counts as present."""
    if not dataset.key:
        return f"""UPDATE {dataset.target} AS t SET gone_at = now()
        WHERE t.gone_at IS NULL AND t.content_hash IS NOT NULL
          AND NOT EXISTS (SELECT FROM {FACTS} AS f WHERE {SAME_FACT})"""
    return f"""UPDATE {dataset.target} AS t SET gone_at = now()
    WHERE t.gone_at IS NULL
      AND NOT EXISTS (SELECT FROM {CHECKED} AS c WHERE c.problem IS NULL AND {key_equals_stored(dataset)})
      AND NOT EXISTS (SELECT FROM ({read_keys(dataset)}) AS c WHERE {key_equals_stored(dataset)})"""


def touch(dataset: Dataset) -> str:
    """Take the weakest lock, under which nobody alters the table."""
    return f"SELECT FROM {dataset.target} LIMIT 0"


def count_rows(dataset: Dataset) -> str:
    return f"SELECT count(*) AS number FROM {dataset.target}"


def _columns_and_cells(dataset: Dataset) -> tuple[str, str]:
    return ", ".join(quoted(name) for name in dataset.names), ", ".join(dataset.cells.values())
