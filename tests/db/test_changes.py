"""What an answer hangs on, and how changes become known: on a real Postgres."""

import asyncio
from contextlib import aclosing, suppress
from time import monotonic

import asyncpg
import pytest

from service.database.gateway import open_database
from service.database.listen import Handlers, Listener
from service.database.session import Session
from service.database.watch import watch
from service.errors import DatabaseUnavailable, Stop
from service.results.changes import CHANNEL, COUNTERS_LAG_S, Changes
from service.results.freshness import Generations
from tests.waiting import until


@pytest.fixture
async def owner(addresses):
    connection = await asyncpg.connect(addresses.url)
    yield connection
    await connection.close()


@pytest.fixture
def generations():
    return Generations()


class Clock:
    ahead = 0.0

    def __call__(self):
        return monotonic() + self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def changes(addresses, clone, reader, generations, clock):
    async with aclosing(Session(addresses.url, "tally poll", 5)) as session:
        yield Changes(clone, session, generations, clock, reader=reader.role, schemas=("data",))


@pytest.fixture(scope="module")
async def reads(shared_addresses, shared_reader):
    """What SQL hangs on that needs no tables of its own."""
    async with (
        open_database(shared_addresses.url) as database,
        aclosing(Session(shared_addresses.url, "tally poll", 5)) as session,
    ):
        changes = Changes(
            database, session, Generations(), monotonic, reader=shared_reader.role, schemas=("data",)
        )

        async def depend(sql):
            return await changes.dependencies(await shared_reader.describe(sql))

        yield depend


@pytest.fixture
async def depend(changes, reader, owner):
    """What SQL hangs on, after `setup` was run as the owner."""

    async def depend(sql, setup=""):
        if setup:
            await owner.execute(setup)
        return await changes.dependencies(await reader.describe(sql))

    return depend


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", ()),
        ("SELECT count(*) FROM metrics", ("data.metrics",)),
        ("SELECT * FROM customers JOIN metrics ON true LIMIT 1", ("data.customers", "data.metrics")),
        ("WITH x AS (SELECT * FROM customers) SELECT (SELECT count(*) FROM x)", ("data.customers",)),
        ("SELECT max(date) FROM metrics WHERE id = $1", ("data.metrics",)),
        ("SELECT to_char(date, 'YYYY'), concat(id, 1) FROM metrics", ("data.metrics",)),
        ("SELECT date_trunc('month', date), 'knowledge' FROM metrics", ("data.metrics",)),
        ("SELECT max(age) FROM (SELECT id AS age FROM metrics) AS m", ("data.metrics",)),
        (r"SELECT length(id)::numeric(10, 2) FROM metrics WHERE id ~ '\d+'", ("data.metrics",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_names_the_tables_of_a_plan(reads, sql, tables):
    found = await reads(sql)
    assert (found.tables, found.timed) == (tables, False)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT now()",
        "SELECT * FROM metrics WHERE date >= CURRENT_DATE - INTERVAL '30' DAY",
        "SELECT localtimestamp FROM metrics",
        "SELECT extract(year FROM current_timestamp)",
        "SELECT random() FROM metrics",
        "SELECT age(date) FROM metrics",
        "SELECT * FROM metrics WHERE date > 'today'::date",
        "SELECT count(*) FROM metrics TABLESAMPLE bernoulli (random() * 100)",
        "SELECT (SELECT max(clock_timestamp())) FROM customers",
        "SELECT * FROM (VALUES (1, now()), (2, now() - INTERVAL '7' DAY)) AS v (n, at), metrics",
        "SELECT * FROM (VALUES (1, current_date), (2, Current_Date - 7)) AS v",
        "WITH v AS (VALUES (NOW ()), (NULL)) SELECT * FROM v",
        'SELECT * FROM (VALUES ("now"/* (*/()), (NULL)) AS v',
        "SELECT * FROM (VALUES ('\"', now(), '\"('), (NULL, NULL, NULL)) AS v",
        "SELECT * FROM metrics WHERE date IN (VALUES (now()), ('2026-01-01'))",
        "SELECT '--', v.* FROM (VALUES (E'\\'--', now()), ('', NULL)) AS v",
        "SELECT * FROM metrics LIMIT (extract(second FROM now())::int % 2)",
        "SELECT * FROM metrics OFFSET (extract(second FROM now())::int % 2)",
        "SELECT * FROM metrics WHERE date <@ '[today,tomorrow)'::tsrange",
        "SELECT * FROM metrics WHERE date <@ '[now,infinity)'::tsrange",
        "SELECT '(2026-01-01,10:00 today]'::tstzrange",
        "SELECT '{now}'::timestamptz[]",
        "SELECT 'now()'::timestamptz",
        "SELECT $$now$$::timestamptz",
        "SELECT $a$ now $a$::timestamptz",
        "SELECT E'n\\x6fw'::timestamptz",
        "SELECT E'\\nnow'::timestamptz",
        "SELECT U&'n\\006fw'::timestamptz",
        "SELECT ('no' || 'w')::timestamptz",
        "SELECT 'no'\n'w'::timestamptz",
        "SELECT count(*) FROM metrics TABLESAMPLE bernoulli (50)",
    ],
)
async def test_time_bounds_what_reads_the_clock_or_is_volatile(reads, sql):
    assert (await reads(sql)).timed


@pytest.mark.parametrize(
    "definition",
    [
        "SELECT id, now() AS at FROM data.metrics",
        "SELECT id, at FROM data.metrics, (VALUES (now()), (NULL)) AS v (at)",
        "SELECT id FROM data.metrics LIMIT extract(day FROM now())",
        "SELECT id FROM data.metrics TABLESAMPLE bernoulli (50)",
    ],
)
async def test_looks_through_views(depend, definition):
    found = await depend(
        "SELECT * FROM latest",
        f'CREATE VIEW data."Lately" AS {definition}; CREATE VIEW data.latest AS SELECT * FROM data."Lately"',
    )
    assert (found.tables, found.timed) == (("data.metrics",), True)


@pytest.mark.parametrize("language", ["plpgsql", "sql"])
async def test_time_bounds_tables_hidden_in_functions(depend, language):
    body = "SELECT count(*) FROM data.metrics"
    body = f"BEGIN RETURN ({body}); END" if language == "plpgsql" else body
    found = await depend(
        'SELECT "How many"() FROM customers',
        f'CREATE FUNCTION data."How many"() RETURNS bigint LANGUAGE {language} STABLE AS $$ {body} $$',
    )
    assert found.timed


async def test_an_immutable_function_of_the_users_own_changes_nothing(depend):
    found = await depend(
        "SELECT twice(customer_id) FROM customers",
        "CREATE FUNCTION data.twice(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE"
        " AS $$ BEGIN RETURN 2 * $1; END $$",
    )
    assert not found.timed


PARTITIONED = """
    CREATE TABLE data.sales (day date) PARTITION BY RANGE (day);
    CREATE TABLE data.old_sales PARTITION OF data.sales FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
    CREATE TABLE data.new_sales PARTITION OF data.sales FOR VALUES FROM ('2020-01-01') TO ('2040-01-01')
"""


@pytest.mark.parametrize("sql", ["SELECT * FROM sales", "SELECT * FROM sales WHERE day < '2010-01-01'"])
async def test_follows_all_members_of_a_partitioned_table(depend, sql):
    """Time bounds it too: a partition may come later."""
    found = await depend(sql, PARTITIONED)
    assert found.tables == ("data.new_sales", "data.old_sales", "data.sales")
    assert found.timed


async def test_time_bounds_partitions_that_the_values_choose(depend):
    assert (await depend("SELECT * FROM sales WHERE day < $1", PARTITIONED)).timed


async def heard(addresses, generations):
    """A listener that is connected; raises the generations as the service does."""
    connected = asyncio.Event()

    def heard():
        generations.heard(monotonic())
        connected.set()

    handlers = Handlers(
        announced=lambda payload: generations.announced(payload, monotonic()),
        silent=lambda: generations.silent(monotonic()),
        heard=heard,
    )
    task = asyncio.create_task(Listener(addresses.url).run([CHANNEL], handlers))
    await connected.wait()
    return task


@pytest.fixture
async def listening(addresses, generations):
    task = await heard(addresses, generations)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


INSERT = "INSERT INTO data.customers VALUES (1, 'Cook', 'Gold')"
TRIGGERS = "ALTER TABLE data.customers {} TRIGGER USER"


@pytest.mark.parametrize(
    "statement",
    [
        INSERT,
        "UPDATE data.customers SET occupation = 'Baker' WHERE customer_id = 99",
        "DELETE FROM data.customers WHERE customer_id = 99",
        "TRUNCATE data.customers CASCADE",
        "COPY",
        "MERGE INTO data.customers USING (SELECT) AS s ON false WHEN NOT MATCHED THEN INSERT VALUES (5)",
        "WITH gone AS (DELETE FROM data.customers RETURNING *) SELECT 1",
    ],
    ids=lambda statement: statement.split()[0].lower(),
)
async def test_every_way_of_writing_is_announced(depend, generations, listening, owner, statement):
    await owner.execute("INSERT INTO data.customers VALUES (99, 'Smith', 'Gold')")
    basis = generations.of((await depend("SELECT * FROM customers")).tables)
    if statement == "COPY":
        await owner.copy_records_to_table(
            "customers", schema_name="data", records=[(7,)], columns=["customer_id"]
        )
    else:
        await owner.execute(statement)
    await until(lambda: not generations.stands(basis))


async def test_what_changes_nothing_is_not_announced(depend, generations, listening, owner):
    customers = generations.of((await depend("SELECT * FROM customers")).tables)
    metrics = generations.of((await depend("SELECT * FROM metrics")).tables)
    async with owner.transaction():
        await owner.execute("DELETE FROM data.customers WHERE customer_id = -1")
        await owner.execute("UPDATE data.customers SET type = type WHERE false")
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute(INSERT)
    await transaction.rollback()
    await owner.execute("INSERT INTO data.metrics (id, date) VALUES ('a', now())")
    await until(lambda: not generations.stands(metrics))  # announcements keep their order
    assert generations.stands(customers)


async def test_a_transaction_announces_a_table_once(depend, generations, listening, owner):
    basis = generations.of((await depend("SELECT * FROM customers")).tables)
    async with owner.transaction():
        for number in range(1, 50):
            await owner.execute("INSERT INTO data.customers VALUES ($1, 'Cook', 'Gold')", number)
    await until(lambda: not generations.stands(basis))
    assert generations.of(["data.customers"]).seen == (("data.customers", 1),)


async def test_counters_tell_of_tables_that_do_not_announce(changes, depend, generations, owner):
    found = await depend("SELECT * FROM plain", "CREATE TABLE data.plain (x int)")
    assert changes.max_age(found.tables) == COUNTERS_LAG_S
    for statement in ("INSERT INTO data.plain VALUES (1)", "DELETE FROM data.plain", "TRUNCATE data.plain"):
        await owner.execute(statement)
        await owner.execute("SELECT pg_stat_force_next_flush()")
        basis = generations.of(found.tables)
        await changes.poll()
        assert not generations.stands(basis), statement
        basis = generations.of(found.tables)
        await changes.poll()
        assert generations.stands(basis)


@pytest.mark.usefixtures("listening")
async def test_counters_of_a_table_that_announces_count_once_when_it_is_quiet(
    changes, depend, generations, owner, clock
):
    found = await depend("SELECT * FROM customers")
    assert changes.max_age(found.tables) == 0
    basis = generations.of(found.tables)
    clock.ahead = COUNTERS_LAG_S
    await changes.poll()
    assert generations.stands(basis)
    clock.ahead = 0
    await owner.execute(INSERT)
    await until(lambda: not generations.stands(basis))
    await owner.execute("SELECT pg_stat_force_next_flush()")
    for ahead, stands in ((0, True), (COUNTERS_LAG_S, False), (2 * COUNTERS_LAG_S, True)):
        clock.ahead = ahead
        basis = generations.of(found.tables)
        await changes.poll()
        assert generations.stands(basis) is stands


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(
    "writing",
    [
        f"SET session_replication_role = replica; {INSERT}",
        f"{TRIGGERS.format('DISABLE')}; {INSERT}; {TRIGGERS.format('ENABLE')}",
    ],
    ids=["replica", "disabled"],
)
async def test_writing_past_the_triggers_is_noticed(changes, depend, generations, *, owner, clock, writing):
    found = await depend("SELECT * FROM customers")
    basis = generations.of(found.tables)
    await owner.execute(f"{writing}; SELECT pg_stat_force_next_flush()")
    clock.ahead = COUNTERS_LAG_S
    await changes.poll()
    assert not generations.stands(basis)


@pytest.mark.parametrize("watch", ["", "SELECT app.watch('data.plain'); SELECT app.watch('data.other')"])
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE data.plain RENAME TO past; ALTER TABLE data.other RENAME TO plain",
        "DROP TABLE data.plain CASCADE",
        "ALTER TABLE data.plain ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE data.plain ALTER x TYPE text",
        "GRANT SELECT ON data.plain TO PUBLIC",
    ],
)
async def test_another_table_behind_a_name_and_another_definition_are_changes(
    changes, depend, generations, *, owner, watch, statement
):
    tables = f"CREATE TABLE data.plain (x int); CREATE TABLE data.other (x int); {watch}"
    basis = generations.of((await depend("SELECT * FROM plain", tables)).tables)
    assert not await changes.poll()
    await owner.execute(statement)
    assert await changes.poll()
    assert not generations.stands(basis)
    assert not await changes.poll()


PASSED_OVER = {
    "what cannot be": (
        "SELECT count(*) FROM plain WHERE NOT x IS NOT NULL AND false",
        "CREATE TABLE data.plain (x int)",
    ),
    "a join that adds nothing": (
        "SELECT a.x FROM one AS a LEFT JOIN plain AS b USING (x)",
        "CREATE TABLE data.one (x int); CREATE TABLE data.plain (x int UNIQUE)",
    ),
    "rows that nobody may see": (
        "SELECT count(*) FROM plain",
        "CREATE TABLE data.plain (x int); ALTER TABLE data.plain ENABLE ROW LEVEL SECURITY",
    ),
    "behind a view": (
        "SELECT x FROM outer_one",
        """CREATE TABLE data.one (x int); CREATE TABLE data.plain (x int UNIQUE);
        CREATE VIEW data.joined AS SELECT a.x FROM data.one AS a LEFT JOIN data.plain AS b USING (x);
        CREATE VIEW data.outer_one AS SELECT x FROM data.joined""",
    ),
}


@pytest.mark.parametrize(("sql", "tables"), PASSED_OVER.values(), ids=PASSED_OVER)
async def test_a_table_that_the_plan_passes_over_is_followed(depend, sql, tables):
    """What lets the plan do so may go, and nothing tells of that."""
    found = await depend(sql, tables)
    assert "data.plain" not in found.tables
    assert "data.plain" in found.followed


@pytest.mark.parametrize("watch", ["", "SELECT app.watch('data.plain')"])
@pytest.mark.parametrize("statement", ["VACUUM FULL data.plain", "TRUNCATE data.plain"])
async def test_other_rows_under_a_name_leave_plans_as_they_are(
    changes, depend, generations, *, owner, watch, statement
):
    found = await depend("SELECT * FROM plain", f"CREATE TABLE data.plain (x int); {watch}")
    basis = generations.of(found.tables)
    await changes.poll()
    await owner.execute(statement)
    assert not await changes.poll()
    assert not generations.stands(basis)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER VIEW data.outer_one RENAME TO past; ALTER VIEW data.two RENAME TO outer_one",
        "ALTER VIEW data.outer_one SET (security_invoker)",
    ],
)
async def test_another_view_behind_a_name_is_a_change(changes, depend, generations, owner, statement):
    await depend(
        "SELECT * FROM outer_one",
        """CREATE VIEW data.one AS SELECT 1; CREATE VIEW data.outer_one AS SELECT * FROM data.one;
        CREATE VIEW data.two AS SELECT 2""",
    )
    await changes.poll()
    epoch = generations.epoch
    await owner.execute(statement)
    assert await changes.poll()
    assert generations.epoch > epoch


async def test_a_refreshed_materialized_view_has_moved(changes, depend, generations, owner):
    found = await depend(
        "SELECT * FROM total",
        "CREATE MATERIALIZED VIEW data.total AS SELECT count(*) FROM data.customers;"
        " GRANT SELECT ON data.total TO PUBLIC",
    )
    basis = generations.of(found.tables)
    await owner.execute("REFRESH MATERIALIZED VIEW data.total")
    await changes.poll()
    assert not generations.stands(basis)


@pytest.mark.usefixtures("listening")
async def test_watch_lets_a_table_and_its_partitions_announce(addresses, depend, changes, generations, owner):
    await owner.execute(PARTITIONED.replace("data.sales", 'data."Sales"'))
    for name in ('data."Sales"', "data.Sales"):
        watched = await asyncio.to_thread(watch, addresses.url, name)
        assert watched == ["data.Sales", "data.old_sales", "data.new_sales"]
    found = await depend('SELECT * FROM "Sales"')
    assert changes.max_age(found.tables) == 0
    for table in ('data."Sales"', "data.new_sales"):
        basis = generations.of(found.tables)
        await owner.execute(f"INSERT INTO {table} VALUES ('2026-01-01')")
        await until(lambda basis=basis: not generations.stands(basis))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("data.nothing", "there is no table data.nothing"),
        ("data.lately", "data.lately is no table"),
        ("data.a b; DROP TABLE data.customers", "there is no table"),
        ("a.b.c.d", "is not a table name"),
    ],
)
async def test_watch_says_what_it_cannot(addresses, owner, table, words):
    await owner.execute("CREATE VIEW data.lately AS SELECT 1")
    with pytest.raises(Stop, match=words) as stop:
        await asyncio.to_thread(watch, addresses.url, table)
    assert stop.value.exit_code == 2


async def test_what_is_first_heard_of_is_read_again_once_it_is_followed(depend):
    sql = "SELECT * FROM plain"
    first = await depend(sql, "CREATE TABLE data.plain (x int); CREATE TABLE data.other (x int)")
    assert (first.settled, (await depend(sql)).settled) == (False, True)
    assert not (await depend("SELECT * FROM plain, other")).settled


async def test_a_poll_that_loses_its_session_makes_another(changes, depend, owner):
    await depend("SELECT * FROM plain", "CREATE TABLE data.plain (x int)")
    assert not await changes.poll()
    await owner.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'tally poll' AND datname = current_database()"
    )
    await owner.execute("ALTER TABLE data.plain ADD y int")

    async def told():
        with suppress(DatabaseUnavailable):
            return await changes.poll()

    assert await until(told) == {"data.plain"}


@pytest.mark.parametrize("language", ["plpgsql", "sql"])
async def test_follows_what_functions_within_functions_name(depend, language):
    body = "SELECT count(*) FROM data.metrics"
    body = f"BEGIN RETURN ({body}); END" if language == "plpgsql" else body
    found = await depend(
        "SELECT twice()",
        f"CREATE FUNCTION data.inner_one() RETURNS bigint LANGUAGE {language} IMMUTABLE AS $$ {body} $$;"
        "CREATE FUNCTION data.twice() RETURNS bigint LANGUAGE sql IMMUTABLE"
        " BEGIN ATOMIC SELECT 2 * data.inner_one(); END",
    )
    assert "data.metrics" in found.followed
