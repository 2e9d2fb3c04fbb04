"""A rule without a database: results go in, and what would be told comes out."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from service.alerts.assessing import Document, failing, review
from service.alerts.models import Definition
from service.alerts.states import transitions
from service.alerts.store import RuleRow, definition_of
from service.database.stored_sql.describing import ResultColumn

COLUMNS = [ResultColumn("day", "date"), ResultColumn("channel", "text"), ResultColumn("n", "bigint")]
SINGLE = [ResultColumn("n", "bigint")]
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
FIRST = datetime(2025, 6, 1, tzinfo=UTC)


def day(number):
    return (FIRST + timedelta(days=number)).date().isoformat()


class Scene:
    """One rule, its alerts, and a clock that the test moves."""

    def __init__(self, columns=COLUMNS, **fields):
        given = {"column": "n", "kind": "threshold"} | fields
        if given["kind"] == "threshold" and "below" not in given:
            given.setdefault("above", 100)
        definition = msgspec.convert(given, Definition)
        definition.check()
        self.columns = columns
        self.now = BEGIN
        self.alerts = {}
        self.row = RuleRow(
            UUID(int=1), UUID(int=2), "Rule", definition_of(definition), None, None, False, None, BEGIN, BEGIN
        )
        self.due = None
        self.log = []

    def see(self, rows, *, after_s=1.0):
        """Evaluate a result; the states that are told, with their series and points."""
        self.now += timedelta(seconds=after_s)
        records = [dict(zip((each.name for each in self.columns), row, strict=True)) for row in rows]
        document = Document(self.columns, records, False, self.now.isoformat().replace("+00:00", "Z"))
        reviewed = review(self.row, self.row.rule(), document, self.now, UTC)
        self.row, self.due = reviewed.row, reviewed.due
        return self.apply(reviewed.seen)

    def fail(self):
        """Evaluate when there was no result for long."""
        return self.apply(failing(self.row, UTC, day(0)))

    def apply(self, seen):
        told = []
        for found in transitions(self.row.rule(), list(self.alerts.values()), seen, self.now):
            self.alerts[found.alert.id] = found.alert
            where = found.alert.series.get("channel")
            told += [(state, where, found.alert.point) for state in found.told]
            self.log += [(found.alert.id, state) for state in found.told]
        return told

    def daily(self, *values, channel="Email", missing=()):
        """Rows of days from the first on."""
        return [(day(number), channel, value) for number, value in enumerate(values) if number not in missing]

    def acknowledge(self):
        (alert,) = self.open
        self.alerts[alert.id] = msgspec.structs.replace(
            alert, state="acknowledged", acknowledged_at=self.now, acknowledged_by="ana"
        )

    @property
    def open(self):
        return [each for each in self.alerts.values() if each.state not in {"resolved", "withdrawn"}]

    @property
    def states(self):
        return [each.state for each in self.alerts.values()]
