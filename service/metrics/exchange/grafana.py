"""Read a dashboard of Grafana: its JSON model, alone or as the API wraps it."""

from collections.abc import Iterator
from typing import Final

import msgspec

from service.errors import Stop
from service.metrics.exchange.grafana_sql import Range, Variables, rewritten
from service.metrics.exchange.plan import (
    Grid,
    LeftOut,
    Node,
    NotTaken,
    Place,
    Plan,
    Query,
    expect,
    limited,
    title_of,
)
from service.metrics.models import Chart

GRID: Final = Grid(24, 38)
POSTGRES: Final = frozenset({"postgres", "grafana-postgresql-datasource"})
_NO_QUERIES: Final = frozenset(
    {"text", "news", "dashlist", "alertlist", "annolist", "welcome", "gettingstarted"}
)
_CHARTS: Final[dict[str, Chart]] = {
    "timeseries": "line", "graph": "line", "trend": "line", "stat": "number", "singlestat": "number",
    "gauge": "number", "barchart": "bar", "bargauge": "bar", "table": "table", "table-old": "table",
}  # fmt: skip


def read(document: Node) -> Plan:
    """The plan of a dashboard. Raises `Stop` for anything else."""
    expect("grafana", document)
    board = document
    if document["spec"].fields:
        board = document["spec"]
        if board["elements"].fields:
            raise Stop(
                "this is Grafana's schema v2: export the dashboard once more as the classic model (v1)",
                exit_code=2,
            )
    elif document["dashboard"].fields:
        board = document["dashboard"]
    title = title_of(board["title"].text, "Dashboard from Grafana")
    name = board["uid"].text or document["metadata"]["name"].text or title
    reader = _Reader(board, name)
    for panel in limited([*_panels(board)], reader.left_out):
        reader.read(panel)
    left_out = [
        LeftOut(title_of(each["name"].text, "Variable"), "ad hoc filters have no counterpart here")
        for each in board["templating"]["list"]
        if each["type"].text == "adhoc"
    ]
    return Plan("grafana", title, reader.queries, [*reader.left_out, *left_out])


def _panels(board: Node) -> Iterator[Node]:
    """All panels; those of collapsed rows and of the rows of old releases too."""
    for panel in board["panels"]:
        if panel["type"].text != "row":
            yield panel
        yield from panel["panels"]
    for row in board["rows"]:
        yield from row["panels"]


class _Reader:
    def __init__(self, board: Node, name: str) -> None:
        self._name = name
        self._inputs = {
            f"${{{each['name'].text}}}": each["pluginId"].text
            for each in board["__inputs"]
            if each["type"].text == "datasource"
        }
        self._library = board["__elements"]
        self._variables = board["templating"]["list"]
        self._time = board["time"]
        self.queries: list[Query] = []
        self.left_out: list[LeftOut] = []

    def read(self, placed: Node) -> None:
        panel = self._filled(placed)
        title = title_of(panel["title"].text, f"Panel {panel['id'].text}")
        try:
            targets = self._targets(panel)
        except NotTaken as why:
            self.left_out.append(LeftOut(title, str(why)))
            return
        chart, notes = _chart(panel)
        for number, target in enumerate(targets):
            own = title if len(targets) == 1 else title_of(f"{title}: {target['refId'].text}", title)
            try:
                query = self._query(panel, target, own)
            except NotTaken as why:
                self.left_out.append(LeftOut(own, str(why)))
            else:
                place = _place(panel["gridPos"], number, len(targets))
                own_notes = (*query.notes, *notes)
                self.queries.append(msgspec.structs.replace(query, place=place, chart=chart, notes=own_notes))

    def _filled(self, placed: Node) -> Node:
        """The panel; one of the library as far as the file brings it, at its place on the board."""
        shared = self._library[placed["libraryPanel"]["uid"].text]["model"].fields
        own = {name: each for name, each in placed.fields.items() if name in {"id", "gridPos"} or each}
        return Node({**shared, **own}) if shared else placed

    def _targets(self, panel: Node) -> list[Node]:
        """The queries of a panel that are shown. Raises `NotTaken` if it has none."""
        kind = panel["type"].text
        targets = [each for each in panel["targets"] if each["hide"].value is not True]
        if kind in _NO_QUERIES:
            raise NotTaken(f"it shows no query: Tally has no tiles of type {kind}")
        if panel["libraryPanel"] and not targets:
            raise NotTaken("it is a library panel, whose query is not in this file")
        if not targets:
            raise NotTaken("it has no query")
        return targets

    def _query(self, panel: Node, target: Node, title: str) -> Query:
        source = self._source(target["datasource"]) or self._source(panel["datasource"])
        if source and source not in POSTGRES:
            raise NotTaken(f"its data source is {source}, not Postgres")
        sql = target["rawSql"].text
        if not sql.strip():
            raise NotTaken("it has no SQL")
        moves = Range(panel["timeFrom"].text and f"now-{panel['timeFrom'].text}", "now")
        if not moves.start:
            moves = Range(self._time["from"].text, self._time["to"].text)
        found = rewritten(sql, Variables(self._variables), moves)
        return Query(
            key=f"Grafana: dashboard {self._name}, panel {panel['id'].text}, query {target['refId'].text}",
            title=title,
            description=panel["description"].text,
            sql=found.sql,
            parameters=found.parameters,
            notes=found.notes,
        )

    def _source(self, source: Node) -> str:
        """The type of a data source, as far as the file tells it."""
        uid = source["uid"].text or source.text
        if uid in self._inputs:
            return self._inputs[uid]
        kind = source["type"].text
        if kind == "datasource" or uid in {"-- Mixed --", "-- Dashboard --", "-- Grafana --"}:
            return "" if uid == "-- Mixed --" else uid.strip("- ")
        return "" if kind.startswith("$") else kind


def _place(at: Node, number: int, count: int) -> Place | None:
    """The place of one of several queries of a panel, below each other."""
    if not at:
        return None
    height = max(1, at["h"].number // count)
    return GRID.place(at["x"].number, at["y"].number + number * height, at["w"].number, height)


def _chart(panel: Node) -> tuple[Chart | None, tuple[str, ...]]:
    kind = panel["type"].text
    drawn = panel["fieldConfig"]["defaults"]["custom"]
    notes = [f"{name} are not taken over" for name in ("transformations",) if panel[name]]
    notes += ["it is one tile, not one for each value"] if panel["repeat"].text else []
    notes += ["its time shift is not taken over"] if panel["timeShift"].text else []
    chart = _CHARTS.get(kind)
    if chart is None:
        notes.append(f"drawn by the shape of its result, not as {kind or 'a panel'}")
    elif chart == "line" and (drawn["drawStyle"].text == "bars" or panel["bars"].value is True):
        stacked = drawn["stacking"]["mode"].text in {"normal", "percent"} or panel["stack"].value is True
        chart = "stacked" if stacked else "bar"
    return chart, tuple(notes)
