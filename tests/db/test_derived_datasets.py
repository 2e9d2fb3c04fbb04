# ruff: noqa: E501 (statements and files by the row)
"""Any table can be imported: its own types, keys, references and constraints are the contract."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.audit import Actor
from service.database.gateway import Transaction
from service.errors import Conflict, InvalidInput, NotFound
from service.imports.contracts import find_among
from service.imports.derived import read_datasets
from service.imports.readers import Upload
from service.imports.registering import NewDataset, add_dataset, remove_dataset
from service.imports.run.imports import Options, Report, import_file

ACTOR = Actor("test", None)
OPTIONS = Options(validate_sql=lambda sql: sql, bytes_limit=1 << 20, actor=ACTOR)
SHOP = """
CREATE SCHEMA sales;
CREATE TYPE sales.status AS ENUM ('new', 'paid', 'sent');
CREATE DOMAIN sales.email AS text CONSTRAINT email_has_at CHECK (VALUE LIKE '%@%');
CREATE TABLE sales.customers (
    id integer PRIMARY KEY,
    email sales.email NOT NULL,
    country varchar(2)
);
CREATE TABLE sales.orders (
    id bigint PRIMARY KEY,
    customer_id integer NOT NULL CONSTRAINT orders_customer REFERENCES sales.customers,
    amount numeric(10,2) NOT NULL CONSTRAINT amount_positive CHECK (amount > 0),
    status sales.status NOT NULL DEFAULT 'new',
    note text DEFAULT 'none',
    placed_at timestamptz NOT NULL DEFAULT '2020-01-01Z',
    line integer, reason text, message text, nth integer, raw text,
    doubled numeric GENERATED ALWAYS AS (amount * 2) STORED,
    number integer GENERATED ALWAYS AS IDENTITY,
    CONSTRAINT paid_has_line CHECK (status <> 'paid' OR line IS NOT NULL)
);
"""


class Shop:
    """A user's schema in the transaction of a test."""

    def __init__(self, tx: Transaction, path: Path) -> None:
        self.tx, self.path = tx, path

    async def run(self, sql: str) -> None:
        await self.tx._connection.execute(sql)

    async def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.tx._connection.fetch(sql)]

    async def add(self, table: str, **options: Any):
        return await add_dataset(self.tx, NewDataset(table, **options), "pg_monitor", ACTOR)

    async def put(self, dataset: str, text: str, source: str = "file.csv", **options: Any) -> Report:
        self.path.write_text(text)
        found = find_among(await read_datasets(self.tx), dataset)
        assert found
        options_given = msgspec.structs.replace(OPTIONS, **options)
        return await import_file(self.tx, Upload(self.path, source), found, options_given)

    async def kept(self) -> list[tuple[Any, ...]]:
        return await self.ask(
            "SELECT line, reason, message FROM quarantine.row WHERE status = 'open' ORDER BY line"
        )


@pytest.fixture
async def bare(tx: Transaction, tmp_path: Path) -> Shop:
    return Shop(tx, tmp_path / "upload")


@pytest.fixture
async def shop(bare: Shop) -> Shop:
    await bare.run(SHOP)
    for table in ("sales.customers", "sales.orders"):
        await bare.add(table)
    return bare


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return report.rows_read, report.inserted, report.updated, report.unchanged, report.quarantined


async def test_rows_are_inserted_updated_and_known_again(shop: Shop):
    assert counts(await shop.put("sales_customers", "id,email,country\n1,a@b,DE\n2,c@d,\n")) == (
        2,
        2,
        0,
        0,
        0,
    )
    orders = "id,customer_id,amount,placed_at\n1,1,10.50,2025-03-01T10:00:00+02:00\n2,2,3,\n"
    assert counts(await shop.put("orders", orders)) == (2, 2, 0, 0, 0)
    assert counts(await shop.put("orders", orders)) == (2, 0, 0, 2, 0)
    assert counts(await shop.put("orders", "id,customer_id,amount\n1,1,11\n")) == (1, 0, 1, 0, 0)
    assert await shop.ask(
        "SELECT id, amount::text, status::text, note, placed_at::text FROM sales.orders ORDER BY id"
    ) == [
        (1, "11.00", "new", "none", "2025-03-01 08:00:00+00"),
        (2, "3.00", "new", "none", "2020-01-01 00:00:00+00"),
    ]


async def test_each_rule_of_the_table_refuses_its_row_and_is_named(shop: Shop):
    await shop.put("sales_customers", "id,email,country\n1,a@b,DE\n2,nobody,DE\n3,a@b,DEU\nx,a@b,DE\n")
    kept = await shop.kept()
    assert [(line, reason) for line, reason, _ in kept] == [
        (3, "out-of-range"),
        (4, "too-large"),
        (5, "wrong-type"),
    ]
    assert 'email: "nobody"' in kept[0][2]
    assert "email_has_at" in kept[0][2]
    await shop.run("TRUNCATE quarantine.row")
    report = await shop.put(
        "orders",
        "id,customer_id,amount,status,line\n1,1,-5,new,1\n2,1,5,lost,1\n3,1,5,paid,\n4,1,,new,1\n5,9,5,new,1\n"
        "6,1,5,paid,1\n7,1,123456789.5,new,1\n8,99999999999,1,new,1\n",
    )
    assert counts(report) == (8, 1, 0, 0, 7)
    kept = await shop.kept()
    assert [reason for _, reason, _ in kept] == [
        "out-of-range",
        "out-of-range",
        "out-of-range",
        "missing-value",
        "orphan",
        "out-of-range",
        "out-of-range",
    ]
    assert kept[0][2] == 'amount: "-5.00" breaks amount_positive: CHECK ((amount > (0)::numeric))'
    assert kept[1][2] == 'status: "lost" is not one of new, paid, sent'
    assert "paid_has_line" in kept[2][2]
    assert kept[4][2] == 'customer_id: "9" is not among sales_customers; the row loads when it arrives'


async def test_orphans_load_in_the_import_that_brings_their_parent(shop: Shop):
    assert counts(await shop.put("orders", "id,customer_id,amount\n1,1,5\n2,7,5\n")) == (2, 0, 0, 0, 2)
    report = await shop.put("sales_customers", "id,email\n7,a@b\n")
    assert report.released == {"orders": 1}
    assert await shop.ask("SELECT id, note FROM sales.orders") == [(2, "none")]


async def test_rows_may_refer_to_rows_of_their_own_file(bare: Shop):
    await bare.run(
        "CREATE TABLE public.staff (id int PRIMARY KEY, boss int REFERENCES public.staff, UNIQUE (boss, id))"
    )
    await bare.add("staff")
    report = await bare.put("staff", "id,boss\n3,2\n2,1\n1,\n6,5\n5,4\n")
    assert (counts(report), report.reasons) == ((5, 3, 0, 0, 2), {"orphan": 2})
    assert (await bare.put("staff", "id,boss\n4,\n")).released == {"staff": 2}


async def test_what_only_the_table_knows_is_found_row_by_row(bare: Shop):
    """Triggers, further unique constraints, partitions and constraints over columns that the file lacks."""
    await bare.run(
        """
        CREATE TABLE public.t (id int PRIMARY KEY, name text UNIQUE, size int, area int GENERATED ALWAYS AS (size * 2) STORED,
            CONSTRAINT small_area CHECK (area < 100)) PARTITION BY RANGE (id);
    """.replace("name text UNIQUE", "name text")
    )
    await bare.run("""
        CREATE TABLE public.t1 PARTITION OF public.t FOR VALUES FROM (0) TO (1000);
        ALTER TABLE public.t1 ADD CONSTRAINT one_name UNIQUE (name);
        CREATE FUNCTION public.no_devil() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.size = 6 THEN RAISE EXCEPTION 'size 6 is not sold' USING ERRCODE = 'SHOP1'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER no_devil BEFORE INSERT ON public.t1 FOR EACH ROW EXECUTE FUNCTION public.no_devil();
    """)
    await bare.add("public.t")
    rows = "".join(f"{n},name {n},{n % 5}\n" for n in range(600))
    report = await bare.put("t", f"id,name,size\n{rows}700,name 5,1\n701,x,6\n702,y,60\n2000,z,1\n703,w,2\n")
    assert counts(report) == (605, 601, 0, 0, 4)
    kept = await bare.kept()
    assert [reason for _, reason, _ in kept] == ["duplicate", "conflict", "out-of-range", "out-of-range"]
    for (_, _, message), says in zip(
        kept, ("one_name", "size 6 is not sold", "small_area", "no partition"), strict=True
    ):
        assert says in message


TYPES = {
    "uuid": ("7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e", "7b0f3f0e", "wrong-type"),
    "jsonb": ('{"a": 1.0}', "{a}", "wrong-type"),
    "json": ('{"a": 1.0}', "{a}", "wrong-type"),
    "integer[]": ("{1,2}", "{1,x}", "wrong-type"),
    "text[]": ('["a b","c"]', '["a"', "wrong-type"),
    "boolean": ("yes", "perhaps", "wrong-type"),
    "timestamptz": ("04/10/2019 09:00+02", "tomorrow", "wrong-type"),
    "timestamp": ("04/10/2019 09:00", "10/13/2019", "wrong-type"),
    "date": ("04/10/2019", "2019-10-04 09:00", "wrong-type"),
    "time": ("09:00", "now", "wrong-type"),
    "interval": ("1 day", "1 dog", "wrong-type"),
    "varchar(3)": ("äöü", "äöüx", "too-large"),
    "char(2)": ("ab", "abc", "too-large"),
    "inet": ("10.0.0.1/8", "10.0.0.256", "wrong-type"),
    "bytea": ("\\x00ff", "\\x0", "wrong-type"),
    "smallint": ("-32768", "32768", "out-of-range"),
    "real": ("1e10", "1e300", "out-of-range"),
    "numeric(4,1)": ("999.9", "1000", "out-of-range"),
    "point": ("(1,2)", "1", "wrong-type"),
    "int4range": ("[1,5)", "[5,1)", "wrong-type"),
    "pg_lsn": ("0/1", "x", "wrong-type"),
    "bit(3)": ("101", "10", "wrong-type"),
    "tsvector": ("a b", "'a", "wrong-type"),
}  # fmt: skip


@pytest.mark.parametrize("type_name", TYPES)
async def test_postgres_decides_on_the_values_of_every_type(bare: Shop, type_name: str):
    good, bad, reason = TYPES[type_name]
    await bare.run(f"CREATE TABLE public.typed (id int PRIMARY KEY, v {type_name})")
    await bare.add("typed")
    text = "id;v\n" + "".join(
        f'{n};"{value.replace(chr(34), chr(34) * 2)}"\n' for n, value in enumerate((good, bad))
    )
    report = await bare.put("typed", text)
    assert (counts(report), report.reasons) == ((2, 1, 0, 0, 1), {reason: 1})
    [(_, _, message)] = await bare.kept()
    assert message.startswith(f'v: "{bad}" ')
    assert (await bare.put("typed", text)).unchanged == 1


@pytest.mark.parametrize(
    ("type_name", "good", "rounded"),
    [
        ("numeric(10,2)", "12.340", "12.345"),
        ("numeric(4,-2)", "1200", "1250"),
        ("real", "0.1", "0.123456789"),
        ("double precision", "0.1", "0.12345678901234567891"),
        ("timestamp(0)", "2025-06-01 09:00:00", "2025-06-01 09:00:00.5"),
        ("timestamptz(0)", "2025-06-01 09:00:00+02", "2025-06-01 09:00:00.5+02"),
    ],
)
async def test_a_value_that_the_type_would_round_is_kept_back(bare: Shop, type_name, good, rounded):
    await bare.run(f"CREATE TABLE public.typed (id int PRIMARY KEY, v {type_name})")
    await bare.add("typed")
    report = await bare.put("typed", f"id;v\n1;{good}\n2;{rounded}\n")
    assert (report.inserted, report.reasons) == (1, {"out-of-range": 1})
    [(_, _, message)] = await bare.kept()
    assert message.startswith(f'v: "{rounded}" has more digits than')


async def test_lists_and_objects_of_a_json_file_reach_arrays_and_json_columns_exactly(bare: Shop):
    await bare.run("CREATE TABLE public.nested (id int PRIMARY KEY, tags text[], more jsonb, plain text)")
    await bare.add("nested")
    text = '[{"id": 1, "tags": ["a, b", "c\\"d", null], "more": {"n": 12345678901234567890.10, "s": "1"}}, {"id": 2, "plain": [1]}]'
    report = await bare.put("nested", text, "file.json")
    assert (report.inserted, report.reasons) == (1, {"wrong-type": 1})
    assert await bare.ask("SELECT tags, more::text FROM public.nested") == [
        (["a, b", 'c"d', None], '{"n": 12345678901234567890.10, "s": "1"}')
    ]


async def test_odd_names_are_names(bare: Shop):
    await bare.run("""
        CREATE SCHEMA "My Schema";
        CREATE TABLE "My Schema"."Order Lines" (
            "select" int, "Größe \"\"x\"\"" text, "a.b" int CONSTRAINT "it's odd" CHECK ("a.b" > 0), "line" int,
            PRIMARY KEY ("select", "line"));
        CREATE TABLE "My Schema"."order" (id int PRIMARY KEY, "s" int, "l" int,
            FOREIGN KEY ("s", "l") REFERENCES "My Schema"."Order Lines");
    """)
    added = await bare.add("My Schema.Order Lines")
    assert (added.name, added.table, added.key) == (
        "order_lines",
        "My Schema.Order Lines",
        ("select", "line"),
    )
    assert (await bare.add('"My Schema"."order"')).name == "order"
    assert counts(await bare.put("order", "id,s,l\n1,5,6\n2,,6\n")) == (2, 1, 0, 0, 1)
    report = await bare.put("order_lines", 'select,"GRÖSSE ""X""",a.b,line\n5,ä,1,6\n6,b,-1,6\n')
    assert (counts(report), report.released) == ((2, 1, 0, 0, 1), {"order": 1})
    assert "it's odd" in (await bare.kept())[0][2]


async def test_facts_are_counted_like_those_that_the_table_has(bare: Shop):
    await bare.run("CREATE TABLE public.facts (at date, amount numeric, note text DEFAULT 'x', doc json)")
    added = await bare.add("public.facts")
    assert added.key == ()
    text = "at,amount,doc\n2025-01-01,1.50,{}\n2025-01-01,1.5,{}\n2025-01-02,,\n"
    assert counts(await bare.put("facts", text)) == (3, 3, 0, 0, 0)
    assert counts(await bare.put("facts", text)) == (3, 0, 0, 3, 0)
    assert counts(await bare.put("facts", text + "2025-01-02,,\n")) == (4, 1, 0, 3, 0)
    assert await bare.ask("SELECT count(*), count(note) FROM public.facts") == [(4, 4)]


async def test_vocabulary_keeps_the_spelling_that_the_table_has(bare: Shop):
    await bare.run(
        "CREATE TABLE public.v (id int PRIMARY KEY, colour text); INSERT INTO public.v VALUES (1, 'Red')"
    )
    await bare.add("v", vocabulary=["colour"])
    await bare.put("v", "id,colour\n2,RED\n3,blue\n4,Blue\n")
    assert await bare.ask("SELECT colour FROM public.v ORDER BY id") == [
        ("Red",),
        ("Red",),
        ("blue",),
        ("blue",),
    ]
    await remove_dataset(bare.tx, "v", ACTOR, force=False)
    assert await bare.ask("SELECT FROM data.vocabulary") == []


async def test_mirroring_is_asked_for_and_told(bare: Shop):
    await bare.run("CREATE TABLE public.m (id int PRIMARY KEY, v text)")
    await bare.add("m")
    with pytest.raises(InvalidInput, match="add it again with `mirror`"):
        await bare.put("m", "id,v\n1,a\n", mirror=True)
    await remove_dataset(bare.tx, "m", ACTOR, force=False)
    added = await bare.add("m", mirror=True)
    assert any("ADD COLUMN gone_at" in each for each in added.added)
    await bare.put("m", "id,v\n1,a\n2,b\n")
    report = await bare.put("m", "id,v\n2,b\nx,c\n", mirror=True)
    assert (counts(report), report.gone) == ((2, 0, 0, 1, 1), 1)
    assert await bare.ask("SELECT id FROM public.m WHERE gone_at IS NULL") == [(2,)]
    assert counts(await bare.put("m", "id,v\n1,a\n")) == (1, 0, 1, 0, 0)


async def test_built_in_datasets_without_the_column_are_not_mirrored(bare: Shop):
    with pytest.raises(InvalidInput, match="queries cannot be mirrored"):
        await bare.put("queries", "id,query\nq,SELECT 1\n", mirror=True)


async def test_a_file_without_the_key_is_told_how_to_choose_another(shop: Shop):
    with pytest.raises(InvalidInput) as refused:
        await shop.put("sales_customers", "email\na@b\n")
    assert "`tally dataset add 'sales.customers' --key COLUMN`" in str(refused.value)
    with pytest.raises(InvalidInput) as refused:  # Tally's own tables have the key that they have
        await shop.put("queries", "query\nSELECT 1\n")
    assert "--key" not in str(refused.value)


async def test_the_contract_follows_the_table(shop: Shop):
    await shop.run(
        "ALTER TABLE sales.customers ADD COLUMN age int NOT NULL CONSTRAINT of_age CHECK (age > 17)"
    )
    with pytest.raises(InvalidInput, match="no heading for age"):
        await shop.put("sales_customers", "id,email\n1,a@b\n")
    report = await shop.put("sales_customers", "id,email,age\n1,a@b,20\n2,a@b,3\n")
    assert counts(report) == (2, 1, 0, 0, 1)
    await shop.run("ALTER TABLE sales.orders RENAME TO purchases")
    with pytest.raises(InvalidInput, match=r"there is no table sales\.orders any more"):
        await shop.put("orders", "id,customer_id,amount\n1,1,5\n")
    assert (await shop.put("sales_customers", "id,email,age\n3,a@b,20\n")).released == {}


async def test_deferred_constraints_and_triggers_that_rely_on_the_search_path_work(bare: Shop):
    await bare.run("""
        CREATE TABLE public.parent (id int PRIMARY KEY);
        CREATE TABLE public.child (id int PRIMARY KEY,
            parent int REFERENCES public.parent DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE public.log (id int);
        CREATE FUNCTION public.logged() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END $$;
        CREATE TRIGGER logged AFTER INSERT ON public.child FOR EACH ROW EXECUTE FUNCTION public.logged();
        INSERT INTO public.parent VALUES (1);
    """)
    await bare.add("child")
    assert counts(await bare.put("child", "id,parent\n1,1\n2,2\n")) == (2, 1, 0, 0, 1)
    assert await bare.ask("SELECT id FROM public.log") == [(1,)]
    await bare.run("DROP TABLE public.log")
    with pytest.raises(Conflict, match='relation "log" does not exist'):
        async with bare.tx.transaction():
            await bare.put("child", "id,parent\n3,1\n")


async def test_rules_that_fail_instead_of_refusing_harm_their_own_row_only(bare: Shop):
    await bare.run("""
        CREATE FUNCTION public.picky(text) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN IF $1 = 'bad' THEN RAISE EXCEPTION 'picky' USING ERRCODE = 'SHOP2'; END IF; RETURN true; END $$;
        CREATE DOMAIN public.word AS text CHECK (public.picky(VALUE));
        CREATE TABLE public.picked (id int PRIMARY KEY, w public.word,
            n int CONSTRAINT shares CHECK (100 / n > 1), "when" timestamptz);
    """)
    await bare.add("picked")
    report = await bare.put("picked", "id,w,n,when\n1,good,5,\n2,bad,5,\n3,good,0,\n4,good,99,\n5,good,7,\n")
    assert counts(report) == (5, 2, 0, 0, 3)
    messages = [message for _, _, message in await bare.kept()]
    for message, says in zip(messages, ("picky", "division by zero", "shares"), strict=True):
        assert says in message


@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        ({"table": "sales.nothing"}, NotFound, "no table sales.nothing"),
        ({"table": "sales.customers"}, Conflict, "is the dataset sales_customers already"),
        ({"table": "sales.seen", "name": "queries"}, Conflict, "There is a dataset queries already"),
        ({"table": "sales.view"}, InvalidInput, "is a view, not a table"),
        ({"table": "imports.run"}, InvalidInput, "one of Tally's own tables"),
        ({"table": "data.customers"}, Conflict, "is the dataset customers already"),
        ({"table": "same"}, InvalidInput, "several tables"),
        ({"table": "sales.seen", "key": ["note"]}, InvalidInput, 'ADD UNIQUE \\("note"\\)'),
        ({"table": "sales.seen", "key": ["nothing"]}, InvalidInput, "no primary key"),
        ({"table": "sales.seen", "vocabulary": ["id"]}, InvalidInput, "id is integer, no text"),
        ({"table": "sales.seen", "vocabulary": ["nothing"]}, InvalidInput, "no column"),
        ({"table": "sales.seen", "name": "a b"}, InvalidInput, "letters, digits"),
        ({"table": "sales.seen", "name": "row"}, Conflict, "is taken"),
        ({"table": "sales.\0"}, InvalidInput, "NUL"),
    ],
)
async def test_what_cannot_be_added_is_told(bare: Shop, wish, error, says):
    await bare.run("""
        CREATE SCHEMA sales; CREATE SCHEMA other;
        CREATE TABLE sales.customers (id int PRIMARY KEY); CREATE TABLE sales.seen (id int PRIMARY KEY, note text);
        CREATE VIEW sales.view AS SELECT 1 AS x;
        CREATE TABLE sales.same (id int); CREATE TABLE other.same (id int);
    """)
    assert (await bare.add("sales.customers")).name == "sales_customers"
    with pytest.raises(error) as refused:
        await bare.add(**wish)
    told = refused.value.detail + " ".join(each.message for each in refused.value.errors)
    assert re.search(says, told), told
