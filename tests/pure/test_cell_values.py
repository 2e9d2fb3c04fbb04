"""What a cell's number and format say as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.imports.xlsx.formats import BUILT_IN, PLAIN, padded, read_format
from service.imports.xlsx.values import elapsed_text, iso_text, moment_text, number_text


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("9007199254740993", "9007199254740993"),
        ("9.0071992547409930E15", "9007199254740993"),
        ("1234567890123456789012345678901234567890", "1234567890123456789012345678901234567890"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("1234567.123456789", "1234567.123456789"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1.50", "1.50"),
        ("2.0", "2"),
        ("007", "7"),
        ("+5", "5"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("-12.5", "-12.5"),
        (".5", "0.5"),
        ("1e-7", "0.0000001"),
        ("1.5E+3", "1500"),
        ("1E+20", "100000000000000000000"),
        (" 12 ", "12"),
        ("1E+300", "1E+300"),
        ("1e-300", "1e-300"),
        ("abc", "abc"),
        ("NaN", "NaN"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("١٢", "١٢"),
    ],
)
def test_a_number_keeps_the_digits_of_the_file(written: str, told: str):
    assert number_text(written) == told


@pytest.mark.parametrize(
    ("written", "typed"),
    [("1.1000000000000001", "1.1"), ("2.2999999999999998", "2.3"), ("8.800000000000001", "8.8")],
)
def test_the_binary_form_of_a_typed_fraction_is_the_fraction(written: str, typed: str):
    assert number_text(written) == typed


@given(st.integers(-(10**14), 10**14), st.integers(0, 14))
def test_a_typed_number_comes_back_from_either_binary_form(digits: int, places: int):
    number = digits / 10**places
    expected = f"{number:.15g}"
    assert float(number_text(f"{number:.17g}")) == float(number_text(f"{number:.16g}")) == float(expected)


@given(st.integers(-(10**40), 10**40))
def test_a_whole_number_is_never_rounded(number: int):
    mantissa, exponent = f"{number}", len(str(abs(number))) - 1
    sign = "-" if number < 0 else ""
    written = mantissa.removeprefix("-")
    assert number_text(str(number)) == str(number)
    assert number_text(f"{sign}{written[0]}.{written[1:] or '0'}E{exponent}") == str(number)


@pytest.mark.parametrize(
    ("serial", "from_1904", "told"),
    [
        ("43742", False, "2019-10-04"),
        ("43742.375", False, "2019-10-04 09:00:00"),
        ("4.3742375E4", False, "2019-10-04 09:00:00"),
        ("43742.000005787", False, "2019-10-04 00:00:00.500000"),
        ("43741.9999999999", False, "2019-10-04"),
        ("0.5", False, "12:00:00"),
        ("1", False, "1900-01-01"),
        ("59", False, "1900-02-28"),
        ("60", False, "60"),
        ("61", False, "1900-03-01"),
        ("2958465", False, "9999-12-31"),
        ("2958466", False, "2958466"),
        ("-3", False, "-3"),
        ("9" * 50, False, "9" * 50),
        ("abc", False, "abc"),
        ("nan", False, "nan"),
        ("42280", True, "2019-10-04"),
        ("60", True, "1904-03-01"),
        ("2957003", True, "9999-12-31"),
        ("2957004", True, "2957004"),
    ],
)
def test_a_day_number_is_a_date_of_its_epoch(*, serial: str, from_1904: bool, told: str):
    assert moment_text(serial, from_1904=from_1904) == told


def test_lengths_of_time_and_written_moments():
    assert elapsed_text("1.25", "") == "30:00:00"
    assert elapsed_text("-1.25", "hm") == "-30:00"
    assert elapsed_text("1e300", "hm") == "1e300"
    assert iso_text("2019-10-04T09:00:00") == "2019-10-04 09:00:00"
    assert iso_text("2019-10-04") == "2019-10-04"
    assert iso_text("2019-10-04T09:00:00Z") == "2019-10-04T09:00:00Z"
    assert iso_text("soon") == "soon"


@pytest.mark.parametrize(
    "code",
    ["yyyy-mm-dd", "D.M.YY", "h:mm AM/PM", "[$-409]mmm\\ yy;@", "[Red]dd/mm", "m/d/yyyy h:mm", '"on "d'],
)
def test_a_format_of_dates(code: str):
    assert read_format(code).kind == "moment"


@pytest.mark.parametrize("code", ["[h]:mm", "[mm]:ss", "[SS].00"])
def test_a_format_of_lengths(code: str):
    assert read_format(code).kind == "elapsed"


@pytest.mark.parametrize(
    "code",
    ["General", "0", "0.00", "#,##0", "#,##0.00;[Red]-#,##0.00", "0%", "0.00E+00", "# ?/?", "@", '"day"',
     "\\d0", "_(* #,##0_);_(* (#,##0)", "[>=100]000;00", "", ";;;", "0" * 2000],
)  # fmt: skip
def test_a_format_that_changes_no_digits(code: str):
    assert read_format(code) == PLAIN


@pytest.mark.parametrize(
    ("code", "digits", "shown"),
    [
        ("000", "7", "007"),
        ("000", "1234", "1234"),
        ("000", "0", "000"),
        ("000;-000;-", "0", "0"),
        ("000;-000", "7", "007"),
        ("000", "-7", "-7"),
        ("000", "7.5", "7.5"),
        ("000", "abc", "abc"),
        ('"K-"0000', "42", "K-0042"),
        ("000\\-00\\-0000", "12345678", "012-34-5678"),
        ("00-00", "123", "01-23"),
        ("(000) 000-0000", "301234567", "(030) 123-4567"),
        ("#000", "12", "012"),
        ("00_)", "5", "05 "),
        ("[$€-407]00", "5", "€05"),
    ],
)
def test_a_padded_number_is_shown_as_its_cell_shows_it(code: str, digits: str, shown: str):
    assert padded(digits, read_format(code)) == shown


def test_built_in_formats_of_time():
    assert {number for number, form in BUILT_IN.items() if form.kind == "moment"} >= {"14", "22", "45", "47"}
    assert BUILT_IN["46"].kind == "elapsed"
