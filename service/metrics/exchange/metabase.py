"""Read a dashboard or questions as Metabase's API gives them."""

from typing import Final

import msgspec
from msgspec import Struct

from service.metrics.exchange.metabase_sql import Tags, rewritten
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

ROW_PX: Final = 48
COLUMNS: Final = 24
OLD_COLUMNS: Final = 18  # of releases that say `ordered_cards`
_CHARTS: Final[dict[str, Chart]] = {
    "scalar": "number", "smartscalar": "number", "gauge": "number", "progress": "number", "line": "line",
    "area": "line", "combo": "line", "bar": "bar", "row": "bar", "table": "table", "pivot": "table",
    "object": "table",
}  # fmt: skip


def read(document: Node) -> Plan:
    """The plan of a dashboard, of a question, or of a list of questions. Raises `Stop` for anything else."""
    expect("metabase", document)
    if document["dashcards"].is_list or document["ordered_cards"].is_list:
        return _Dashboard(document).plan()
    queries: list[Query] = []
    left_out: list[LeftOut] = []
    for card in limited(list(document) if document.is_list else [document], left_out):
        title = title_of(card["name"].text, f"Question {card['id'].text}")
        try:
            fields = _field_names(card["param_fields"])
            key = f"Metabase: question {card['id'].text or title}"
            queries.append(_query(card, title, key, Tags(_native(card)[1], fields, {})))
        except NotTaken as why:
            left_out.append(LeftOut(title, str(why)))
    return Plan("metabase", "Questions from Metabase", queries, left_out)


class _Tab(Struct):
    """Tabs follow each other on one page. `below` is the row where this one begins."""

    name: str
    below: int = 0


class _Dashboard:
    def __init__(self, document: Node) -> None:
        self._document = document
        is_new = document["dashcards"].is_list
        self._left_out: list[LeftOut] = []
        self._cards = limited(list(document["dashcards" if is_new else "ordered_cards"]), self._left_out)
        widest = max((_at(card, "col") + _at(card, "size_x") for card in self._cards), default=0)
        self._grid = Grid(COLUMNS if is_new or widest > OLD_COLUMNS else OLD_COLUMNS, ROW_PX)
        self._fields = _field_names(document["param_fields"])
        self._parameters = {each["id"].text: each for each in document["parameters"]}
        self._tabs = self._ordered_tabs()

    def plan(self) -> Plan:
        name = self._document["id"].text or self._document["entity_id"].text
        queries: list[Query] = []
        left_out = self._left_out
        for placed in self._cards:
            cards = [placed["card"], *placed["series"]]
            for number, card in enumerate(cards):
                shown = placed["visualization_settings"]["card.title"].text if not number else ""
                title = title_of(shown or card["name"].text, f"Question {card['id'].text}")
                try:
                    _check_shown(placed, card)
                    key = f"Metabase: dashboard {name}, card {placed['id'].text}, question {card['id'].text}"
                    query = _query(card, title, key, self._tags(placed, card))
                    place = self._place(placed, number, len(cards))
                    queries.append(msgspec.structs.replace(query, place=place))
                except NotTaken as why:
                    text = placed["visualization_settings"]["text"].text if not card["name"] else ""
                    left_out.append(LeftOut(title_of(text[:60], title), str(why)))
        return Plan(
            "metabase", title_of(self._document["name"].text, "Dashboard from Metabase"), queries, left_out
        )

    def _ordered_tabs(self) -> dict[str, _Tab]:
        listed = self._document["tabs"] or self._document["ordered_tabs"]
        tabs = {
            each["id"].text: _Tab(each["name"].text)
            for each in sorted(listed, key=lambda each: each["position"].number)
        }
        below = 0
        for tab_id, tab in tabs.items():
            tab.below = below
            own = [card for card in self._cards if card["dashboard_tab_id"].text == tab_id]
            below += max((_at(card, "row") + _at(card, "size_y") for card in own), default=0)
        return tabs

    def _place(self, placed: Node, number: int, count: int) -> Place:
        tab = self._tabs.get(placed["dashboard_tab_id"].text)
        height = max(1, _at(placed, "size_y") // count)
        top = _at(placed, "row") + (tab.below if tab else 0) + number * height
        return self._grid.place(_at(placed, "col"), top, _at(placed, "size_x"), height)

    def _tags(self, placed: Node, card: Node) -> Tags:
        """The template tags of a card, named after the filters of the dashboard that set them."""
        filters: dict[str, Node] = {}
        for mapping in placed["parameter_mappings"]:
            target = [*mapping["target"]]
            tag = [*target[1]] if len(target) > 1 else []
            is_own = mapping["card_id"].text in {"", card["id"].text}
            if len(tag) > 1 and tag[0].text == "template-tag" and is_own:
                filters[tag[1].text] = self._parameters.get(mapping["parameter_id"].text, Node(None))
        return Tags(_native(card)[1], {**self._fields, **_field_names(card["param_fields"])}, filters)


def _at(placed: Node, name: str) -> int:
    """A number of a place, as new or as old releases name it."""
    found = placed[name] if name in placed.fields else placed[name.replace("_x", "X").replace("_y", "Y")]
    return found.number


def _check_shown(placed: Node, card: Node) -> None:
    virtual = placed["visualization_settings"]["virtual_card"]["display"].text
    if virtual:
        raise NotTaken(f"Tally's dashboards have no {virtual} tiles")
    if not card["dataset_query"]:
        raise NotTaken("its question is not in this file: export it as a user who may see it")


def _native(card: Node) -> tuple[str, Node]:
    """The SQL of a question and its template tags. Raises `NotTaken`."""
    query = card["dataset_query"]
    stage = next(iter(query["stages"]), Node(None))  # releases since 57
    if stage["native"].text:
        return stage["native"].text, stage["template-tags"]
    if query["native"]["query"].text:
        return query["native"]["query"].text, query["native"]["template-tags"]
    if query["type"].text == "query" or query["stages"]:
        raise NotTaken("it was built in the editor and has no SQL: convert it to SQL in Metabase first")
    raise NotTaken("it has no SQL")


def _query(card: Node, title: str, key: str, tags: Tags) -> Query:
    found = rewritten(_native(card)[0], tags)
    kind = card["display"].text
    chart, notes = _CHARTS.get(kind), list(found.notes)
    if chart is None and kind:
        notes.append(f"drawn by the shape of its result, not as {kind}")
    if chart == "bar" and card["visualization_settings"]["stackable.stack_type"].text:
        chart = "stacked"
    return Query(
        key=key,
        title=title,
        description=card["description"].text,
        sql=found.sql,
        parameters=found.parameters,
        chart=chart,
        notes=tuple(notes),
    )


def _field_names(listed: Node) -> dict[str, str]:
    """The columns that the file names, by their ids. Old releases list them by id, new ones by parameter."""
    found: dict[str, str] = {}
    for value in listed.fields.values():
        node = Node(value)
        for field in node if node.is_list else [node]:
            if field["id"].text and field["name"].text:
                found[field["id"].text] = field["name"].text
    return found
