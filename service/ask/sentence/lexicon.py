"""Find the words of a prompt that name a table, a column or a value.

Every name and value of the schema becomes a set of stems, so that the order of words does not matter:
`sold units` finds `units_sold`. Longer phrases win.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct, structs

from service.ask.schema import Column, Schema, Table, row_names, synonyms
from service.ask.sentence.words import Word, singular, stem, stems

MeaningKind = Literal["table", "column", "value", "topic"]

_ABBREVIATIONS = {
    "val": "value", "qty": "quantity", "amt": "amount", "num": "number", "cnt": "count",
    "desc": "description", "cat": "category", "cust": "customer", "prod": "product", "dept": "department",
    "addr": "address",
    "dt": "date", "ts": "time", "pct": "percent", "tot": "total", "avg": "average", "org": "organisation",
    "emp": "employee", "inv": "invoice", "acct": "account", "mgr": "manager", "ctry": "country",
}  # fmt: skip
_SAME = (
    "need require await pending wait lacking",
    "email mail",
    "call phone telephone",
    "customer client",
    "revenue turnover",
    "cost expense spending",
    "type kind",
    "value amount",
    "quantity units",
    "price rate",
    "order purchase sale sold sell selling bought",
)
_CANONICAL = {stem(word): stem(group.split()[0]) for group in _SAME for word in group.split()}
_AFFIXES = {
    stem(word)
    for word in ("at", "on", "id", "key", "tbl", "dim", "fact", "table", "ts", "dt", "time", "code")
}
_MEASURE_WORDS = {stem(word) for word in ("value", "amount")}
_VAGUE_WORDS = (
    "id date time name value amount number count total of and the in on at is are to for by per end "
    "start need description text note comment flag day week month quarter year no not all other new "
    "type kind"
)
_VAGUE = {stem(word) for word in _VAGUE_WORDS.split()}
_SMALL_WORDS = (
    "a an the to be been being is are was were of for that which who have has had get got still yet with"
)
SKIPPED = frozenset(_SMALL_WORDS.split())
_LONGEST = 6
PARTIAL = 4  # the weight of a name's single part; whole names weigh more
_SHORTEST_PART = 3
_SHORTEST_MISSPELT = 5


class Meaning(Struct, frozen=True):
    """One reading of a phrase.

    `weight` orders readings; the exact spelling `spelt` weighs more than equal stems. A `topic` names rows
    that fill a column, or, without a column, the columns that begin with its name.
    """

    kind: MeaningKind
    table: Table
    weight: int
    column: Column | None = None
    value: str = ""
    topic: str = ""
    spelt: tuple[str, ...] = ()


class Mention(Struct, frozen=True):
    """Words from `first`, up to but not including `end`, and their meanings, the most likely first."""

    first: int
    end: int
    text: str
    meanings: tuple[Meaning, ...]
    misspelt: str = ""


class Lexicon:
    """The phrases of one schema. Immutable once built."""

    def __init__(self, schema: Schema) -> None:
        self._phrases: dict[tuple[str, ...], list[Meaning]] = defaultdict(list)
        self._likened: dict[tuple[str, ...], list[Meaning]] = defaultdict(list)
        self._spellings: dict[str, str] = {}
        for table in schema.tables:
            self._add_table(table)
            for column in table.columns:
                self._add_column(table, column)
                for value in column.values:
                    self._add_value(table, column, value)

    def at(self, words: list[Word], first: int, barriers: frozenset[int]) -> Mention | None:
        """The longest phrase that begins at word `first` and does not cross `barriers`."""
        if words[first].quoted:
            return self._quoted(words[first], first)
        span = [first]
        for index in range(first + 1, len(words)):
            if index in barriers or words[index].quoted or len(span) == _LONGEST:
                break
            if words[index].text not in SKIPPED and words[index].text != "-":
                span.append(index)
        for length in range(len(span), 0, -1):
            if length == 1 and words[first].number is not None:
                return None
            found = self._look(tuple(words[index].stem for index in span[:length]))
            if found:
                spelt = _spelt(words[index].text for index in span[:length])
                sure = [_surer(meaning) if meaning.spelt == spelt else meaning for meaning in found]
                return _mention(words, first, span[length - 1] + 1, sure)
        return None

    def near(self, words: list[Word], index: int) -> Mention | None:
        """The meanings of a misspelt word: one letter is wrong, missing, extra or swapped."""
        text = words[index].text
        if len(text) < _SHORTEST_MISSPELT or not text.isalpha():
            return None
        close = {right for left, right in self._spellings.items() if _one_off(text, left)}
        if len(close) != 1:
            return None
        right = close.pop()
        found = self._look((right,))
        return _mention(words, index, index + 1, found, misspelt=text) if found else None

    def _look(self, key: tuple[str, ...]) -> list[Meaning]:
        exact = self._phrases.get(tuple(sorted(key)), [])
        if any(meaning.weight > PARTIAL for meaning in exact):
            return exact
        return exact + [meaning for meaning in self._likened.get(_liken(key), []) if meaning not in exact]

    def _quoted(self, word: Word, index: int) -> Mention | None:
        found = [meaning for meaning in self._look(stems(word.text)) if meaning.kind == "value"]
        return Mention(index, index + 1, word.raw, _ranked(found)) if found else None

    def _add(self, names: Iterable[str], meaning: Meaning) -> None:
        key = tuple(name for name in names if name)
        if not key:
            return
        self._phrases[tuple(sorted(key))].append(meaning)
        self._likened[_liken(key)].append(meaning)

    def _spell(self, text: str) -> None:
        for word in text.replace("_", " ").casefold().split():
            if len(word) >= _SHORTEST_MISSPELT:
                self._spellings[word] = stem(word)
                self._spellings[word + "s"] = stem(word)

    def _add_table(self, table: Table) -> None:
        name = stems(table.name)
        self._spell(table.name)
        self._add(name, Meaning("table", table, 10, spelt=_spelt(table.name.casefold().split("_"))))
        head = _head(table.name)
        if (head,) != name:
            heads = [part for part in table.name.casefold().split("_") if stem(part) == head]
            self._add((head,), Meaning("table", table, 9, spelt=_spelt(heads[-1:])))
            for other in set(name) - {head} - _VAGUE:
                self._add((other,), Meaning("table", table, 3))
        for synonym in synonyms(table.comment):
            self._add(stems(synonym), Meaning("table", table, 9))
        for topic in _topics(table):
            self._add((topic,), Meaning("topic", table, 8, topic=f"{topic}s"))

    def _add_column(self, table: Table, column: Column) -> None:
        self._spell(column.name)
        plain = Meaning("column", table, 10, column, spelt=_spelt(column.name.casefold().split("_")))
        self._add(stems(column.name), plain)
        for names, weight in _column_names(table, column):
            self._add(names, Meaning("column", table, weight, column))
        for name in row_names(column.comment):
            topic = Meaning("topic", table, 10, column, topic=name, spelt=_spelt(name.casefold().split()))
            self._add(stems(name), topic)

    def _add_value(self, table: Table, column: Column, value: str) -> None:
        name = stems(value)
        meaning = Meaning("value", table, 10, column, value, spelt=_spelt(value.casefold().split()))
        self._add(name, meaning)
        self._spell(value)
        if len(name) > 1:
            partial = Meaning("value", table, 4, column, value)
            for part in set(name) - _VAGUE:
                if len(part) >= _SHORTEST_PART and not part.isdigit():
                    self._add((part,), partial)


def _column_names(table: Table, column: Column) -> Iterator[tuple[tuple[str, ...], int]]:
    """Possible names of a column, with their weights."""
    written, head = stems(column.name), _head(table.name)
    name = _spelt_out(written)
    if name != written:
        yield name, 10
    yield from ((stems(synonym), 9) for synonym in synonyms(column.comment))
    if head not in name:
        yield (head, *name), 12
    core = tuple(part for part in name if part not in _AFFIXES) if len(name) > 1 else name
    if column.dated:
        yield (*(part for part in core if part != "dat"), "dat"), 6
        yield (head, "dat"), 5
    if table.is_key(column.name):
        return
    if core != name:
        yield core, 7
    if column.numeric:
        yield from (((*name, word), 6) for word in _MEASURE_WORDS - set(name))
    if len(core) > 1:
        yield core[1:], 6
        yield from [((head, *core[1:]), 9)] if head not in core else []
        vague = _VAGUE if column.kind != "text" else set[str]()
        yield from (((part,), 4 if part == core[-1] else 2) for part in set(core) - vague)


def _spelt(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(singular(word) for word in words))


def _surer(meaning: Meaning) -> Meaning:
    return structs.replace(meaning, weight=meaning.weight + 2)


def _mention(words: list[Word], first: int, end: int, found: list[Meaning], misspelt: str = "") -> Mention:
    text = " ".join(word.raw for word in words[first:end])
    return Mention(first, end, text, _ranked(found), misspelt)


def _ranked(found: list[Meaning]) -> tuple[Meaning, ...]:
    return tuple(sorted(found, key=lambda meaning: -meaning.weight))


def _liken(key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(_CANONICAL.get(part, part) for part in key))


def _spelt_out(name: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(stem(_ABBREVIATIONS[part]) if part in _ABBREVIATIONS else part for part in name)


def _head(name: str) -> str:
    """The main noun of a table's name: `item` of order_items."""
    whole = stems(name.split("_of_", maxsplit=1)[0])
    kept = [part for part in whole if part not in _AFFIXES] or list(whole)
    return kept[-1] if kept else ""


def _topics(table: Table) -> list[str]:
    """First words that several columns share, such as `ticket` of ticket_type and ticket_state."""
    seen: dict[str, int] = defaultdict(int)
    for column in table.columns:
        name = stems(column.name)
        if len(name) > 1 and not table.is_key(column.name) and column.kind == "text":
            seen[name[0]] += 1
    own = set(stems(table.name))
    return [name for name, count in seen.items() if count > 1 and name not in own | _VAGUE]


def _one_off(left: str, right: str) -> bool:
    """Whether one letter was swapped with its neighbour, changed, dropped or added."""
    if abs(len(left) - len(right)) > 1 or left == right:
        return False
    at = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    if len(left) == len(right):
        swapped = left[at + 1 : at + 2] + left[at] + left[at + 2 :]
        return left[at + 1 :] == right[at + 1 :] or swapped == right[at:]
    longer, shorter = (left, right) if len(left) > len(right) else (right, left)
    return longer[at + 1 :] == shorter[at:]
