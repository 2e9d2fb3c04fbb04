"""What is remembered of header fields."""

from service.http.short_cache import LONGEST, MOST, remember_short


def test_short_fields_are_read_once_and_long_ones_are_not_kept():
    read: list[str] = []

    @remember_short
    def length(field: str) -> int:
        read.append(field)
        return len(field)

    short, long = "x" * LONGEST, "x" * (LONGEST + 1)
    assert [length(short), length(short)] == [LONGEST, LONGEST]
    assert read == [short]
    assert [length(long), length(long)] == [LONGEST + 1, LONGEST + 1]
    assert read == [short, long, long]
    for number in range(MOST):
        length(str(number))
    length(short)
    assert read[-1] == short
