"""What decides about callers is read once a minute, and again when something has ended."""

import pytest

from service.auth.remembered import REMEMBERED, TRUSTED_S, Remembered
from service.errors import DatabaseUnavailable


class Rows(dict):
    """A table that counts how often it is read."""

    def __init__(self, **rows):
        super().__init__(rows)
        self.reads = 0
        self.is_away = False

    def of(self, key):
        async def read():
            self.reads += 1
            if self.is_away:
                raise DatabaseUnavailable
            return self.get(key)

        return read


@pytest.fixture
def rows():
    return Rows(a="one")


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def remembered(clock):
    return Remembered(lambda: clock[0])


async def test_a_value_is_read_once_until_it_is_old(remembered, rows, clock):
    assert remembered.lookup("a") is None
    for _ in range(3):
        assert await remembered.find("a", rows.of("a")) == "one"
    assert (remembered.lookup("a"), rows.reads) == ("one", 1)
    clock[0] = TRUSTED_S + 1
    rows["a"] = "two"
    assert remembered.lookup("a") is None
    assert await remembered.find("a", rows.of("a")) == "two"


async def test_that_there_is_none_is_asked_again(remembered, rows):
    for _ in range(2):
        assert await remembered.find("b", rows.of("b")) is None
    assert rows.reads == 2


async def test_an_old_value_outlives_the_database(remembered, rows, clock):
    await remembered.find("a", rows.of("a"))
    clock[0], rows.is_away = TRUSTED_S + 1, True
    assert await remembered.find("a", rows.of("a")) == "one"
    with pytest.raises(DatabaseUnavailable):
        await remembered.find("b", rows.of("b"))


async def test_what_ends_while_it_is_read_is_not_kept(remembered):
    async def read():
        remembered.forget()
        return "one"

    assert await remembered.find("a", read) == "one"
    assert remembered.lookup("a") is None


async def test_what_was_dropped_or_forgotten_is_read_again(remembered, rows):
    for end in (lambda: remembered.drop("a"), remembered.forget):
        await remembered.find("a", rows.of("a"))
        end()
        assert remembered.lookup("a") is None


async def test_the_oldest_make_room(remembered, rows):
    for number in range(REMEMBERED + 1):
        await remembered.find(number, rows.of("a"))
    assert remembered.lookup(0) is None
    assert remembered.lookup(REMEMBERED) == "one"
