"""A stored statement with its parameters: bound values replace slots, and the rest of the text is unchanged.

Without placeholders and without a given window, the stored text runs byte for byte. Only a closing semicolon
is replaced by a blank, so that the text can be wrapped.
`day_range=N` means the N days up to today by Postgres's clock (`CURRENT_DATE - N`), in the session's time
zone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from functools import cached_property, partial
from typing import Annotated, Any, Final, Literal, NoReturn

import msgspec
from msgspec import UNSET, Meta, Struct

from service.errors import FieldError, InvalidInput
from service.settings import zone_of
from service.sql.parameters.days import Slot
from service.sql.parameters.values import (
    DAY,
    Canonical,
    Kind,
    Shown,
    Word,
    from_json,
    from_text,
    kind_of,
    says_now,
    shown,
)
from service.sql.parameters.windows import (
    END,
    HOW,
    NAMES,
    NO_WINDOW,
    RANGE,
    START,
    Mode,
    Window,
    WindowSlots,
)

Source = Literal["placeholder", "window"]

RANGE_LIMIT = 36_600
NAME_LIMIT = 63
DAY_KIND = Kind("date", "date")
RANGE_KIND = Kind("integer", "int4")
IMPLIED = {START: DAY_KIND, END: DAY_KIND, RANGE: RANGE_KIND}
END_OF_DAY = "T23:59:59.999999"
MESSAGES_LIMIT = 20


class Declared(Struct, frozen=True, forbid_unknown_fields=True):
    """A definition's declaration of a placeholder; with a null `default`, callers may omit it (NULL)."""

    type: Word
    array: bool = False
    values: tuple[Annotated[str, Meta(pattern=r"^[^\x00]*$")], ...] = ()
    default: Any = UNSET


class Parameter(Struct, frozen=True):
    """A parameter that callers may give. A window's default is the value in the SQL (null: not a whole day).

    `postgres_type` is named as in `pg_type` (`int4`, `interval[]`, `char` for `"char"`).
    """

    name: str
    type: Word
    source: Source
    array: bool = False
    values: tuple[str, ...] = ()
    required: bool = False
    default: Any = None  # a value of `shown`; the OpenAPI document cannot express its union
    postgres_type: str = ""


class BoundStatement(Struct, frozen=True, gc=False):
    """A statement ready to run. For all types `args` are texts or lists of texts; `windows` are those in use.

    Statements with equal `key`s have the same result. `parameters` are the effective values, with defaults;
    Decimals in it are JSON numbers. `clock` means that the result may depend on the time of the run.
    """

    sql: str
    args: tuple[Canonical, ...]
    parameters: dict[str, Shown]
    key: bytes
    clock: bool = False
    windows: frozenset[str] = frozenset()


class Probe(Struct, frozen=True):
    """SQL to prepare: Postgres reports the types of `$1, $2, ...`, which belong to `names` in this order."""

    sql: str
    names: tuple[str, ...]


class Template(Struct, frozen=True, dict=True):  # dict: for the cached properties
    sql: str
    slots: tuple[Slot, ...]
    kinds: dict[str, Kind]
    defaults: dict[str, Canonical]
    window_slots: WindowSlots
    casts: dict[str, str]
    mode: Mode = "auto"
    time_zone: str = "UTC"
    quoted: frozenset[str] = frozenset()

    @cached_property
    def zone(self) -> tzinfo:
        return zone_of(self.time_zone)

    @property
    def untyped(self) -> tuple[str, ...]:
        """The placeholders whose type only Postgres's prepare can resolve: see `probe` and `with_types`."""
        return tuple(name for name, kind in self.kinds.items() if not kind.postgres)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        placeholders = (self._describe(name, kind, "placeholder") for name, kind in self.kinds.items())
        windows = (self._describe(name, self._every_kind[name], "window") for name in self._window_names)
        return (*placeholders, *windows)

    @property
    def window(self) -> Window:
        offered = bool({*self.accepted} & {*NAMES})
        return self.window_slots.described(self.sql, self.mode, offered=offered)

    def probe(self) -> Probe:
        sql, names, _ = self._render(frozenset(), typed=False)
        return Probe(sql, names)

    def probe_places(self, as_text: frozenset[int]) -> Probe:
        """Like `probe`, but each place has its own number and type; the places in `as_text` are texts."""
        names: list[str] = []

        def spelled(name: str) -> str:
            names.append(name)
            return f"${len(names)}" + ("::text" if len(names) in as_text else self._cast(name, typed=False))

        sql = self._joined(self._filled(frozenset(), spelled))
        return Probe(sql, tuple(names))

    def moved(self, given: frozenset[str]) -> tuple[str, dict[tuple[int, int], tuple[int, int]]]:
        """The SQL with windows moved by named parameters, and each of their slots' range before and after."""
        filled = [each for each in self._filled(given, lambda name: f":{name}") if each[0].on is not None]
        ranges: dict[tuple[int, int], tuple[int, int]] = {}
        shift = 0
        for slot, text in filled:
            start = slot.start + shift
            ranges[slot.start, slot.end] = (start, start + len(text))
            shift += len(text) - (slot.end - slot.start)
        return self._joined(filled), ranges

    def with_types(self, types: Mapping[str, str]) -> "Template":
        """Set the types that Postgres resolved, named as in `pg_type` (`int4`, `text[]`, `mood`).

        Names that already have a type keep it.
        """
        kinds = {
            name: kind_of(types[name], kind if kind.word == "enum" else None)
            if not kind.postgres and name in types
            else kind
            for name, kind in self.kinds.items()
        }
        return msgspec.structs.replace(self, kinds=kinds)

    @property
    def offered(self) -> tuple[frozenset[str], ...]:
        """The parameters of its windows that callers may give together."""
        every = (frozenset({START, END}), frozenset({RANGE}))
        return tuple(given for given in every if given & {*self._window_names})

    def trials(self) -> tuple[str, ...]:
        """SQL with its windows in use: if Postgres cannot prepare one of them, use `without_windows`.

        That happens if the window's column is not a date, such as a day stored as text.
        """
        return tuple(self._render(given)[0] for given in self.offered)

    def without_windows(self, why_not: str) -> "Template":
        first = next((slot.start for slot in self.slots if slot.on is not None), None)
        slots = tuple(slot for slot in self.slots if slot.on is None)
        return msgspec.structs.replace(self, slots=slots, window_slots=WindowSlots(why_not=why_not, at=first))

    @property
    def plain(self) -> str:
        """The typed SQL without a given window."""
        return self._render(frozenset())[0]

    def bind(self, raw: Sequence[tuple[str, str]]) -> BoundStatement:
        """Bind the pairs of a query string, each name at most once; InvalidInput names every wrong pair."""
        errors: list[FieldError] = []
        given: dict[str, Canonical] = {}
        seen: set[str] = set()
        for name, text in raw:
            if name in seen:
                _note(errors, FieldError(label(name), f"{label(name)} is given twice"))
            elif name in self.accepted:
                self._take(name, given, errors, text)
            else:
                _note(errors, self._unknown(name))
            seen.add(name)
        return self._bind(given, errors)

    def bind_json(self, raw: Mapping[str, Any]) -> BoundStatement:
        """Bind decoded JSON values: strings as in a query string, numbers, booleans and arrays."""
        errors: list[FieldError] = []
        given: dict[str, Canonical] = {}
        for name, value in raw.items():
            if name in self.accepted:
                self._take(name, given, errors, value)
            else:
                _note(errors, self._unknown(name))
        return self._bind(given, errors)

    def value_trials(self, bound: BoundStatement) -> Iterator[tuple[str, str, str, Canonical]]:
        """For values that only Postgres can validate: the name, its expected form, and SQL that tests it."""
        for name, value in zip(self._render(bound.windows)[1], bound.args, strict=True):
            kind, further = self._every_kind[name], self.casts.get(name, "")
            if value is not None and (further or not kind.is_validated_here):
                yield name, kind.expected, f"SELECT ($1{kind.cast}{further}) IS NULL", value

    @cached_property
    def accepted(self) -> tuple[str, ...]:
        """The names that a caller may give."""
        return (*self.kinds, *self._window_names)

    @cached_property
    def _window_names(self) -> tuple[str, ...]:
        """The accepted names of the window. A placeholder `:start_date` also accepts `day_range`."""
        names = {*self.window_slots.accepts, *([RANGE] if START in self.kinds else [])} - {*self.kinds}
        if self._fixed & {START, END}:
            names.discard(RANGE)
        return tuple(name for name in NAMES if name in names)

    def _take(self, name: str, given: dict[str, Canonical], errors: list[FieldError], value: Any) -> None:
        kind = self._every_kind[name]
        if name == END and kind.word == "timestamp" and isinstance(value, str) and DAY.fullmatch(value):
            value += END_OF_DAY
        try:
            given_as_text = isinstance(value, str)
            read = from_text(kind, value, self.zone) if given_as_text else from_json(kind, value, self.zone)
        except ValueError as wrong:
            _note(errors, FieldError(name, f"{name} must be {wrong}"))
            return
        if name == RANGE and kind == RANGE_KIND and not 1 <= int(str(read)) <= RANGE_LIMIT:
            _note(errors, FieldError(name, f"{name} must be a number of days from 1 to {RANGE_LIMIT}"))
            return
        given[name] = read

    def _unknown(self, name: str) -> FieldError:
        if name in self.quoted:
            why = f"it stands inside quotes, where it is text; write :{name} without quotes"
            return FieldError(name, f"{name} is no parameter of this metric: {why}")
        takes = f"it takes {', '.join(map(label, self.accepted))}" if self.accepted else "it takes none"
        message = f"{label(name)} is no parameter of this metric: {takes}"
        window = self.window
        why = window.why if name in NAMES and self.window_slots.why_not else None
        where = f" (line {window.line}, column {window.column})" if window.line else ""
        return FieldError(label(name), f"{message}. {why}{where}" if why else message)

    def _hint(self, errors: list[FieldError]) -> str:
        """Further help for a caller who gives a window to a statement without one."""
        if self.window.offered or not any(error.field in NAMES for error in errors):
            return ""
        return f" {HOW}" if self.window_slots.why_not else f" {NO_WINDOW}. {HOW}"

    def _bind(self, given: dict[str, Canonical], errors: list[FieldError]) -> BoundStatement:
        ranged = RANGE in given and RANGE not in self.kinds
        if ranged and (START in given or END in given):
            errors.append(FieldError(RANGE, "day_range goes without start_date and end_date"))
        elif START in given and END in given and self._after(given[START], given[END]):
            errors.append(FieldError(START, "start_date is after end_date"))
        values = {name: given.get(name, self.defaults.get(name)) for name in self.kinds}
        if ranged:
            values = {name: value for name, value in values.items() if not self._follows_range(name)}
        if missing := [name for name in values if name not in given and name not in self.defaults]:
            self._need(missing, errors)
        if errors:
            _refuse(errors, self._hint(errors))
        for name in self._window_names:
            if name in given and not (
                name in self.window_slots.exact and str(self.window_slots.defaults[name]) == given[name]
            ):
                values[name] = given[name]
        windows = frozenset(values.keys() - self.kinds.keys()) if self._window_names else _NO_WINDOWS
        if (rendered := self._rendered.get(windows)) is None:
            rendered = self._rendered[windows] = self._render(windows)
        sql, names, clock = rendered
        args = tuple(values[name] for name in names)
        clock = clock or any(says_now(values[name]) for name in self._texts if name in values)
        return BoundStatement(sql, args, self._effective(values), _key(values), clock, windows)

    def _need(self, missing: list[str], errors: list[FieldError]) -> None:
        """Note the missing names, unless they were given and are wrong."""
        wrong = {error.field for error in errors}
        for name in missing:
            if name not in wrong:
                _note(errors, FieldError(name, f"{name} is needed: {self.kinds[name].expected}"))

    def _after(self, start: Canonical, end: Canonical) -> bool:
        """Whether the start is after the end; a day and a timestamp compare as days."""
        if {self._every_kind[name].word for name in (START, END)} <= {"date", "timestamp"}:
            return str(start)[: len(str(end))] > str(end)
        return False

    def _follows_range(self, name: str) -> bool:
        return name in {START, END} and self.kinds[name] == DAY_KIND

    def _effective(self, values: dict[str, Canonical]) -> dict[str, Shown]:
        """The effective values: given ones, defaults, and literals of the window that were not replaced."""
        effective = {name: shown(self._every_kind[name], value) for name, value in values.items()}
        if not self.window_slots.defaults:
            return effective
        ranged = RANGE in values and RANGE not in self.kinds
        hidden = {START, END} if ranged else {RANGE} if START in values else set[str]()
        literals = {name: day for name, day in self.window_slots.defaults.items() if name not in hidden}
        return {**literals, **effective}

    def _describe(self, name: str, kind: Kind, source: Source) -> Parameter:
        if source == "window":
            required, default = False, self.window_slots.defaults.get(name)
        else:
            required, default = name not in self.defaults, shown(kind, self.defaults.get(name))
        postgres_type = f"{kind.postgres}[]" if kind.array and kind.postgres else kind.postgres
        return Parameter(name, kind.word, source, kind.array, kind.values, required, default, postgres_type)

    @cached_property
    def _rendered(self) -> dict[frozenset[str], tuple[str, tuple[str, ...], bool]]:
        return {}

    def _render(self, given: frozenset[str], *, typed: bool = True) -> tuple[str, tuple[str, ...], bool]:
        """The SQL with the given windows in use, the names of `$1, $2, ...`, and if it reads the clock."""
        numbers: dict[str, int] = {}
        sql = self._joined(self._filled(given, partial(self._numbered, numbers, typed=typed)))
        clock = any(self._is_ranged(slot, given) for slot in self._used(given))
        return sql, tuple(numbers), clock

    def stored_position(
        self, position: int, windows: frozenset[str] = frozenset(), *, typed: bool = True
    ) -> int:
        """Map a 1-based position of the rendered text to the stored text; a slot maps to its start."""
        shift = 0
        for slot, filled in self._filled(windows, partial(self._numbered, {}, typed=typed)):
            if position - shift <= slot.start:
                break
            if position - shift <= slot.start + len(filled):
                return slot.start + 1
            shift += len(filled) - (slot.end - slot.start)
        return position - shift

    def _used(self, given: frozenset[str]) -> Iterator[Slot]:
        return (slot for slot in self.slots if slot.on is None or slot.on & given)

    def _is_ranged(self, slot: Slot, given: frozenset[str]) -> bool:
        """Whether `day_range` fills a slot."""
        return RANGE in given and slot.name in {START, END} and slot.name not in self._fixed

    def _filled(self, given: frozenset[str], spelled: Callable[[str], str]) -> Iterator[tuple[Slot, str]]:
        """The slots in use and their texts; `spelled` gives the text for a parameter."""
        for slot in self._used(given):
            if not self._is_ranged(slot, given):
                yield slot, slot.template.format(f"({spelled(slot.name)})")
            elif slot.name == END:
                yield slot, slot.template.format("CURRENT_DATE")
            else:
                yield slot, slot.template.format(f"(CURRENT_DATE - ({spelled(RANGE)}))")

    def _joined(self, filled: Iterable[tuple[Slot, str]]) -> str:
        """The SQL with these texts in place of the slots; the rest is unchanged."""
        pieces: list[str] = []
        at = 0
        for slot, text in filled:
            pieces += [self.sql[at : slot.start], text]
            at = slot.end
        pieces.append(self.sql[at:])
        return "".join(pieces)

    def _numbered(self, numbers: dict[str, int], name: str, *, typed: bool) -> str:
        """`$1` with its cast; `numbers` are the parameters numbered so far."""
        return f"${numbers.setdefault(name, len(numbers) + 1)}{self._cast(name, typed=typed)}"

    @cached_property
    def _fixed(self) -> frozenset[str]:
        """Placeholders that `day_range` cannot set, because their declared type is not a day."""
        return frozenset(name for name, kind in self.kinds.items() if kind != DAY_KIND)

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        """Placeholders whose value is a text, which SQL may cast to any type."""
        return tuple(name for name, kind in self.kinds.items() if kind.word in {"text", "enum"})

    @cached_property
    def _every_kind(self) -> dict[str, Kind]:
        """The kinds of all placeholders, and of the window's names that are not placeholders."""
        return {**IMPLIED, **self.kinds}

    def _cast(self, name: str, *, typed: bool) -> str:
        kind = self._every_kind[name]
        return kind.cast if typed or kind.postgres else ""


_NO_WINDOWS: Final[frozenset[str]] = frozenset()


def _key(values: dict[str, Canonical]) -> bytes:
    return msgspec.json.encode(list(values.items()))


def _note(errors: list[FieldError], error: FieldError) -> None:
    """Add an error; refuse at once when there are `MESSAGES_LIMIT` of them."""
    errors.append(error)
    if len(errors) >= MESSAGES_LIMIT:
        _refuse(errors)


def _refuse(errors: list[FieldError], hint: str = "") -> NoReturn:
    raise InvalidInput(f"{errors[0].message}.{hint}", errors=tuple(errors[:MESSAGES_LIMIT]))


def label(name: str) -> str:
    """A caller's word, shortened and always encodable as UTF-8."""
    return name[:NAME_LIMIT].encode("utf-8", "replace").decode()
