"""One lexer reads SQL as Postgres does, and a statement is tokenised once."""

import pytest

from service.sql import lexer
from service.sql.statements import Submission, validate
from service.sql.validation.dialect import DIALECT

PLAIN = "SELECT channel, count(*) FROM metrics WHERE kind = :kind AND note <> ':x' GROUP BY 1"
WINDOW = "SELECT count(*) FROM metrics WHERE date >= '2025-06-01' AND date < '2025-07-01' AND kind = :kind"


class Counted:
    """The lexer's pattern; it notes each text of which it is given the beginning."""

    def __init__(self) -> None:
        self.pattern = lexer._LEXEME
        self.texts: list[str] = []

    def match(self, sql: str, at: int):
        if at == 0:
            self.texts.append(sql)
        return self.pattern.match(sql, at)


@pytest.mark.parametrize("trusted", [False, True], ids=["validated", "trusted"])
@pytest.mark.parametrize("sql", [PLAIN, WINDOW], ids=["plain", "window"])
def test_a_stored_text_is_tokenised_once(monkeypatch, sql, trusted):
    ours, theirs = Counted(), []
    monkeypatch.setattr(lexer, "_LEXEME", ours)
    tokenize = DIALECT.tokenize
    monkeypatch.setattr(DIALECT, "tokenize", lambda text: theirs.append(text) or tokenize(text))

    template = validate(Submission(sql=sql, trusted=trusted, schemas=("data",)))
    template.bind([("kind", "a")])

    assert ours.texts.count(sql) == 1
    assert theirs.count(sql) == (0 if trusted else 1)
    rendered = [text for text in ours.texts if text != sql]
    assert len(rendered) == (sql == WINDOW and not trusted), "the moved window, parsed to check it"
    assert theirs[1:] == rendered


@pytest.mark.parametrize(
    ("sql", "marks"),
    [
        ("a<=-1", ["<=", "-"]),
        ("a=@b", ["=@"]),
        ("a*-1", ["*", "-"]),
        ("a @- b", ["@-"]),
        ("- - -+a", ["-", "-", "-", "+"]),
        ("a~-b", ["~-"]),
        ("a/*+*/+b", ["+"]),
        ("a+--x\nb", ["+"]),
        ("a</*x*/=b", ["<", "="]),
        ("a->>'b'", ["->>"]),
        ("a::int", ["::"]),
        ("f(a := 1)", ["(", ":=", ")"]),
        ("f(a => 1)", ["(", "=>", ")"]),
        ("count(*)", ["(", "*", ")"]),
        ("a[1:n]", ["[", ":", "]"]),
    ],
)
def test_operators_end_where_postgres_ends_them(sql, marks):
    assert [lexeme.text for lexeme in lexer.tokenize(sql) if lexeme.kind == "mark"] == marks


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("'a", "open"),
        ('"a', "open"),
        ("/* /* */", "open"),
        ("$a$ $b$", "open"),
        ("U&'a'", "unicode"),
        ('u&"a"', "unicode"),
        ("1a", "junk"),
        ("$1", "numbered"),
        (":a", "parameter"),
        (":a$b", "parameter"),
        ("{", "other"),
        ("N'a'", "string"),
        ("$a$ ' $b$ $a$", "string"),
        ("E'\\''", "string"),
        ("'a'\n'b'", "string"),
        ("0o17", "number"),
        ("1_000.5e-3", "number"),
    ],
)
def test_any_text_has_lexemes(sql, kind):
    assert lexer.tokenize(sql)[0].kind == kind
