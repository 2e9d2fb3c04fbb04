# ruff: noqa: E501, RUF001 (SQL stands on one line, in letters chosen to deceive)
"""Stored SQL that must do no harm, each with the wall that must hold, and honest SQL that must pass.

Data only: the tests of validation read it, and so do the runs against a live database. `setup` is run by the
owner beforehand; each honest statement runs on the tables of `data` as the migrations make them.
"""

from typing import Literal, NamedTuple

Wall = Literal["validation", "read-only", "role", "timeout", "limit"]


class Hostile(NamedTuple):
    name: str
    sql: str
    wall: Wall
    attempt: str
    setup: str = ""


def _refused(attempt: str, **statements: str) -> list[Hostile]:
    return [Hostile(name.replace("_", "-"), sql, "validation", attempt) for name, sql in statements.items()]


WRITES = _refused(
    "change data or definitions",
    insert="INSERT INTO data.metrics (id) VALUES ('x')",
    insert_returning="INSERT INTO data.metrics (id) VALUES ('x') RETURNING *",
    update="UPDATE data.metrics SET id = 'x'",
    delete="DELETE FROM data.metrics",
    merge="MERGE INTO data.metrics m USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    truncate="TRUNCATE data.metrics",
    drop="DROP TABLE data.metrics",
    create_table_as="CREATE TABLE data.stolen AS SELECT * FROM data.customers",
    create_function="CREATE FUNCTION data.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    alter_role="ALTER ROLE tally_reader SUPERUSER",
    grant="GRANT ALL ON ALL TABLES IN SCHEMA app TO tally_reader",
    comment_on="COMMENT ON TABLE data.metrics IS 'owned'",
    select_into="SELECT * INTO data.stolen FROM data.customers",
    select_into_temporary="SELECT 1 AS a INTO TEMPORARY stolen",
    delete_in_cte="WITH gone AS (DELETE FROM data.metrics RETURNING *) SELECT * FROM gone",
    insert_in_cte="WITH x AS (INSERT INTO data.metrics (id) VALUES ('x') RETURNING id) SELECT * FROM x",
    update_in_cte="WITH x AS (UPDATE data.metrics SET id = id RETURNING id) SELECT count(*) FROM x",
    merge_in_cte=(
        "WITH x AS (MERGE INTO data.metrics m USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE "
        "RETURNING m.id) SELECT * FROM x"
    ),
    dml_in_nested_cte=(
        "SELECT * FROM (WITH a AS (WITH b AS (DELETE FROM data.metrics RETURNING id) SELECT * FROM b) "
        "SELECT * FROM a) q"
    ),
    nextval="SELECT nextval('app.audit_id_seq')",
    setval="SELECT setval('app.audit_id_seq', 1)",
    for_update="SELECT * FROM data.metrics FOR UPDATE",
    for_share_of="SELECT * FROM data.metrics m FOR SHARE OF m SKIP LOCKED",
    for_update_inside="SELECT * FROM (SELECT * FROM data.customers FOR NO KEY UPDATE) c",
)
COMMANDS = _refused(
    "run a command instead of a query",
    copy_to_program="COPY data.customers TO PROGRAM 'curl -d @- http://127.0.0.1/'",
    copy_from_program="COPY data.customers FROM PROGRAM 'id'",
    copy_query="COPY (SELECT * FROM data.customers) TO '/tmp/stolen'",
    do_block="DO $$ BEGIN PERFORM pg_sleep(60); END $$",
    call="CALL data.anything()",
    execute="EXECUTE stolen",
    prepare="PREPARE stolen AS SELECT 1",
    declare_cursor="DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    explain_analyze="EXPLAIN ANALYZE DELETE FROM data.metrics",
    set_role="SET ROLE postgres",
    set_timeout="SET statement_timeout = 0",
    reset_all="RESET ALL",
    discard_all="DISCARD ALL",
    listen="LISTEN tally",
    notify="NOTIFY tally, 'data.metrics'",
    lock_table="LOCK TABLE data.metrics",
    vacuum="VACUUM FULL data.metrics",
    begin="BEGIN READ WRITE",
    rollback="ROLLBACK",
    show="SHOW ALL",
    load="LOAD 'auto_explain'",
    checkpoint="CHECKPOINT",
)
TRICKS = _refused(
    "hide a second statement or a name from whoever reads the text",
    second_statement="SELECT 1; DELETE FROM data.metrics",
    commit_first="SELECT 1; COMMIT; DELETE FROM data.metrics",
    leading_semicolon="; DELETE FROM data.metrics",
    semicolon_after_comment="SELECT 1 -- harmless\n; DROP TABLE data.metrics --",
    nested_comment="SELECT 1 /* /* */ ; DROP TABLE data.metrics; -- */ */ ; DELETE FROM data.metrics",
    comment_ends_early="SELECT /* /* */ 1, pg_sleep(60) /* */ */ */ AS x",
    comment_in_call="SELECT pg_sleep/* here */ -- there\n (60)",
    carriage_return_ends_comment="SELECT 1 --\r, pg_sleep(60)",
    unclosed_comment="SELECT 1 /* /* */",
    unclosed_string="SELECT 'a",
    unclosed_dollar="SELECT $a$ x $b$",
    backslash_string="SELECT 'a\\', pg_sleep(60), '",
    escape_string="SELECT E'a\\', ' || pg_sleep(60) || '",
    string_continued="SELECT E'a'\n'\\', pg_sleep(60), '",
    dollar_tags="SELECT $a$ $b$ $a$, pg_sleep(60), $b$ $b$",
    dollar_in_name="SELECT a$b$, pg_sleep(60), b$b$ FROM data.metrics",
    unicode_identifier='SELECT U&"pg\\005fsleep"(60)',
    unicode_identifier_own_escape="SELECT U&\"pg!005fsleep\" UESCAPE '!' (60)",
    unicode_string="SELECT U&'\\0027' || pg_sleep(60) || U&'\\0027'",
    no_break_space="SELECT\u00a0pg_sleep(60)",
    zero_width_space="SELECT pg_sleep\u200b(60)",
    long_s="ſelect pg_sleep(60)",
    kelvin_sign="SELECT 1 AS a FROM data.metrics loc\u212a",
    sharp_s="SELECT * FROM data.metrics a croß JOIN pg_authid",
    full_width="SELECT ｐg_sleep(60)",
    nul="SELECT 1 \x00, pg_sleep(60)",
    hash_comment="SELECT 1 # pg_sleep(60)\n",
    jinja_comment="SELECT 1 {# , #} , pg_sleep(60)",
    backticks="SELECT `pg_sleep`(60)",
    percent_placeholder="SELECT %(a)s, pg_sleep(60)",
    numbered_parameter="SELECT $1, pg_sleep($2)",
    number_then_name="SELECT 1pg_sleep(60)",
    nothing="",
    only_a_comment="-- nothing",
)
SLEEPS = _refused(
    "hold a connection",
    sleep="SELECT pg_sleep(60)",
    sleep_quoted='SELECT "pg_sleep"(60)',
    sleep_qualified="SELECT pg_catalog.pg_sleep(60)",
    sleep_spaced='SELECT "pg_catalog" . "pg_sleep" (60)',
    sleep_upper="SELECT PG_SLEEP(60)",
    sleep_for="SELECT pg_sleep_for('1 minute')",
    sleep_until="SELECT pg_sleep_until('tomorrow')",
    sleep_in_from="SELECT * FROM pg_sleep(60)",
    sleep_in_lateral="SELECT * FROM data.metrics m, LATERAL pg_sleep(60) s",
    sleep_in_rows_from="SELECT * FROM ROWS FROM (generate_series(1, 2), pg_sleep(60)) AS r(a, b)",
    sleep_in_case="SELECT CASE WHEN true THEN pg_sleep(60) END",
    sleep_in_where="SELECT 1 WHERE pg_sleep(60) IS NOT NULL",
    sleep_in_order="SELECT id FROM data.metrics ORDER BY pg_sleep(60)",
    sleep_in_filter="SELECT count(*) FILTER (WHERE pg_sleep(60)::text = '') FROM data.metrics",
    sleep_in_values="VALUES (pg_sleep(60))",
    sleep_in_limit="SELECT 1 LIMIT length(pg_sleep(60)::text)",
    sleep_in_join="SELECT 1 FROM data.metrics a JOIN data.metrics b ON pg_sleep(60) IS NULL",
    sleep_in_array="SELECT ARRAY[pg_sleep(60)]",
    sleep_in_window="SELECT sum(1) OVER (PARTITION BY pg_sleep(60)) FROM data.metrics",
    sleep_after_distinct_on="SELECT DISTINCT ON (id) pg_sleep(60) FROM data.metrics",
    sleep_after_operator="SELECT 1 OPERATOR(pg_catalog.+) pg_sleep(60)",
    sleep_behind_cte_name="WITH pg_sleep(a) AS (SELECT 1) SELECT pg_sleep(60) FROM pg_sleep",
    sleep_behind_alias="SELECT pg_sleep(id) FROM data.customers AS pg_sleep(id)",
    advisory_lock="SELECT pg_advisory_lock(1)",
    advisory_try_lock="SELECT pg_try_advisory_lock_shared(1, 2)",
    advisory_xact_lock="SELECT pg_advisory_xact_lock(1)",
    advisory_unlock="SELECT pg_advisory_unlock_all()",
)
SERVER = _refused(
    "reach the server, its files, its settings or other sessions",
    read_file="SELECT pg_read_file('/etc/passwd')",
    read_binary_file="SELECT pg_read_binary_file('postgresql.conf')",
    list_folder="SELECT * FROM pg_ls_dir('.')",
    stat_file="SELECT (pg_stat_file('PG_VERSION')).size",
    log_file="SELECT pg_current_logfile()",
    terminate="SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    cancel="SELECT pg_cancel_backend(1)",
    backend_pid="SELECT pg_backend_pid()",
    reload="SELECT pg_reload_conf()",
    notify_function="SELECT pg_notify('tally', 'data.metrics')",
    set_role_config="SELECT set_config('role', 'postgres', false)",
    set_timeout_config="SELECT set_config('statement_timeout', '0', false)",
    set_read_write="SELECT set_config('transaction_read_only', 'off', true)",
    set_path="SELECT pg_catalog.set_config('search_path', 'app', false)",
    read_setting="SELECT current_setting('data_directory')",
    read_setting_computed="SELECT current_setting('request.' || 'claims')",
    read_setting_concatenated="SELECT current_setting('request.claims' || '')",
    read_setting_of_a_column=(
        "SELECT current_setting(\"'request.claims'\") FROM (SELECT 'data_directory' AS \"'request.claims'\") q"
    ),
    read_setting_named="SELECT current_setting(setting_name => 'data_directory')",
    read_setting_escaped="SELECT current_setting(E'data_directory')",
    large_object_create="SELECT lo_create(0)",
    large_object_from="SELECT lo_from_bytea(0, 'x')",
    large_object_import="SELECT lo_import('/etc/passwd')",
    large_object_get="SELECT lo_get(1)",
    large_object_unlink="SELECT lo_unlink(1)",
    export_snapshot="SELECT pg_export_snapshot()",
    replication_slot="SELECT pg_create_physical_replication_slot('stolen')",
    wal_switch="SELECT pg_switch_wal()",
    emit_message="SELECT pg_logical_emit_message(false, 'a', 'b')",
    set_seed="SELECT setseed(0.5)",
    dblink="SELECT * FROM dblink('host=127.0.0.1', 'SELECT 1') AS t(a int)",
    version="SELECT version()",
    current_user_word="SELECT current_user",
    user_word="SELECT user",
    current_schema_word="SELECT current_schema",
    server_address="SELECT inet_server_addr()",
    transaction_id="SELECT txid_current()",
)
TEXT_RUNNERS = _refused(
    "run SQL, or look up names, that stand in a string",
    query_to_xml="SELECT query_to_xml('DELETE FROM data.metrics', true, true, '')",
    query_to_xml_schema="SELECT query_to_xml_and_xmlschema('SELECT * FROM app.item', true, true, '')",
    table_to_xml="SELECT table_to_xml('app.item', true, true, '')",
    schema_to_xml="SELECT schema_to_xml('app', true, true, '')",
    database_to_xml="SELECT database_to_xml(true, true, '')",
    cursor_to_xml="SELECT cursor_to_xml('c', 1, true, true, '')",
    ts_stat="SELECT * FROM ts_stat('SELECT to_tsvector(secret) FROM app.api_client')",
    ts_rewrite="SELECT ts_rewrite('a'::tsquery, 'SELECT a, b FROM app.api_client')",
    view_definition="SELECT pg_get_viewdef('app.secret')",
    function_definition="SELECT pg_get_functiondef(1)",
    has_privilege="SELECT has_table_privilege('app.item', 'select')",
    to_regclass="SELECT to_regclass('app.item')",
    cast_regclass="SELECT 'app.item'::regclass",
    cast_regclass_words="SELECT CAST('app.item' AS pg_catalog.regclass)",
    typed_regclass="SELECT regclass 'app.item'",
    quoted_regclass="SELECT 'app.item'::\"regclass\"",
    called_regclass="SELECT regclass('app.item')",
    array_of_regclass="SELECT '{app.item}'::_regclass",
    cast_regrole="SELECT 10::regrole",
    cast_regproc="SELECT 'pg_sleep'::regproc",
    cast_aclitem="SELECT 'postgres=r/postgres'::aclitem",
    valid_input="SELECT pg_input_is_valid('app.item', 'regclass')",
    valid_input_quoted="SELECT pg_input_is_valid('app.item', '\"regclass\"')",
    valid_input_qualified="SELECT pg_input_is_valid('app.item', 'pg_catalog.regclass')",
    valid_input_reckoned="SELECT pg_input_is_valid('app.item', 're' || 'gclass')",
    valid_input_of_a_column="SELECT pg_input_is_valid((SELECT concat(',', 'date')), id) FROM metrics",
    object_comment="SELECT obj_description('data.metrics'::regclass)",
)
ELSEWHERE = _refused(
    "read outside of the data schemas",
    app_table="SELECT * FROM app.api_client",
    catalog_table="SELECT * FROM catalog.query",
    quarantine_table="SELECT * FROM quarantine.row",
    public_table="SELECT * FROM public._yoyo_migration",
    passwords="SELECT rolname, rolpassword FROM pg_authid",
    qualified_catalog="SELECT * FROM pg_catalog.pg_authid",
    quoted_catalog='SELECT * FROM "pg_authid"',
    upper_catalog="SELECT * FROM PG_AUTHID",
    shadow="SELECT * FROM pg_shadow",
    activity="SELECT (pg_stat_activity).query FROM pg_stat_activity",
    activity_star="SELECT (pg_stat_activity).* FROM pg_stat_activity",
    settings="SELECT name, setting FROM pg_settings",
    table_command="TABLE pg_authid",
    table_in_union="SELECT id FROM data.metrics UNION TABLE pg_roles",
    table_in_exists="SELECT EXISTS (TABLE pg_authid)",
    table_in_array="SELECT ARRAY(SELECT rolname FROM pg_roles)",
    only="SELECT * FROM ONLY pg_authid",
    star_suffix="SELECT * FROM pg_authid *",
    in_join_parentheses="SELECT * FROM (data.metrics CROSS JOIN pg_authid)",
    in_comma_list="SELECT * FROM data.metrics, pg_authid",
    in_natural_join="SELECT * FROM data.metrics NATURAL JOIN pg_authid",
    in_subquery="SELECT (SELECT max(rolname) FROM pg_authid)",
    in_where="SELECT 1 WHERE EXISTS (SELECT 1 FROM pg_authid WHERE rolsuper)",
    in_order="SELECT id FROM data.metrics ORDER BY (SELECT count(*) FROM pg_class)",
    in_lateral="SELECT * FROM data.metrics, LATERAL (SELECT * FROM pg_authid) p",
    in_values="VALUES ((SELECT max(rolname) FROM pg_roles))",
    in_limit="SELECT 1 LIMIT (SELECT count(*) FROM pg_class)",
    sampled="SELECT * FROM pg_class TABLESAMPLE system (100)",
    cte_of_itself="WITH pg_authid AS (SELECT * FROM pg_authid) SELECT * FROM pg_authid",
    cte_out_of_scope="SELECT * FROM (WITH pg_roles AS (SELECT 1) SELECT * FROM pg_roles) a, pg_roles",
    cte_beside="(WITH pg_roles AS (SELECT 1) SELECT * FROM pg_roles) UNION ALL (SELECT 1 FROM pg_roles)",
    cte_before_its_turn="WITH a AS (SELECT 1 FROM pg_roles), pg_roles AS (SELECT 1) SELECT * FROM a",
    cte_does_not_hide_schema="WITH pg_authid AS (SELECT 1) SELECT * FROM pg_catalog.pg_authid",
    information_schema="SELECT * FROM information_schema.tables",
    information_schema_quoted='SELECT * FROM "information_schema"."tables"',
    toast="SELECT * FROM pg_toast.pg_toast_1255",
    three_parts="SELECT * FROM postgres.data.metrics",
    three_parts_elsewhere="SELECT * FROM postgres.app.item",
    catalog_row_type="SELECT NULL::pg_authid",
    operator_elsewhere="SELECT 1 OPERATOR(app.+) 2",
    row_of_a_catalog_name="SELECT m.pg_restore_relation_stats FROM data.metrics m",
    catalog_function="SELECT * FROM pg_show_all_settings()",
    statistics_function="SELECT pg_stat_get_backend_activity(1)",
    size_of_table="SELECT pg_relation_size('app.item')",
)
WRITTEN_OUT = _refused(
    "fill the memory while the statement is planned",
    repeat="SELECT repeat('x', 1000000000)",
    repeat_of_catalog="SELECT pg_catalog.repeat('x', 1000000000)",
    repeat_of_a_text="SELECT repeat('x', '1000000000')",
    repeat_with_an_exponent="SELECT repeat('x', 1e9::int)",
    repeat_in_octal="SELECT repeat('x', 0o7346545000)",
    repeat_led_by_zeros="SELECT repeat('x', 000000000001000000000)",
    repeat_in_repeat="SELECT length(repeat(upper(repeat('x', 10000)), 100000))",
    repeat_reckoned="SELECT md5(repeat('x', 1000 * 1000 * 1000))",
    pad="SELECT lpad('x', 1000000000), rpad('x', 1000000000, 'yz')",
)
MADE_LONG = _refused(
    "make a text or an array of any size",
    repeat_aggregate="SELECT repeat(string_agg('x', ''), 100000) FROM generate_series(1, 10000)",
    repeat_rows="SELECT repeat('x', 100000) AS a FROM generate_series(1, 5000)",
    repeat_column="SELECT repeat('#', parts_flagged::int) FROM metrics",
    repeat_parameter="SELECT repeat('#', :n)",
    repeat_subquery="SELECT repeat('#', (SELECT 1000000000))",
    repeat_case="SELECT repeat('#', CASE WHEN true THEN 1000000000 ELSE 1 END)",
    repeat_greatest="SELECT repeat('#', greatest(5, 1000000000))",
    repeat_after_least="SELECT repeat('#', least(parts_flagged::int, 5) * 100000000) FROM metrics",
    repeat_before_least="SELECT repeat('#', 1000000000 - least(parts_flagged::int, 5)) FROM metrics",
    repeat_least_unbounded="SELECT repeat('#', least(parts_flagged::int, 1000000000)) FROM metrics",
    repeat_own_least="SELECT repeat('#', data.least(1000000000, 5))",
    repeat_quoted_least="SELECT repeat('#', \"least\"(1000000000, 5))",
    repeat_in_hexadecimal="SELECT repeat('#', 0x3B9ACA00)",
    repeat_underscored="SELECT repeat('#', 1_000_000_000)",
    repeat_quoted="SELECT \"repeat\"('#', 1000000000)",
    repeat_spaced="SELECT pg_catalog . \"repeat\" /* */ ('#', 1000000000)",
    repeat_long_literal="SELECT repeat('" + "x" * 1000 + "', 10000)",
    repeat_dollar_literal="SELECT repeat($a$" + "x" * 1000 + "$a$, 10000)",
    repeat_of_a_parameter="SELECT repeat(:text, 10000)",
    repeat_fed="SELECT repeat(repeat('x', 10000), 10000)",
    repeat_fed_by_least="SELECT repeat(repeat('x', least(length(id), 5000)), least(5000, length(id))) FROM metrics",
    repeat_fed_deep="SELECT repeat('a' || upper((SELECT repeat('x', 10000))), 10000)",
    repeat_fed_by_lpad="SELECT repeat(lpad('x', 1000), 1000)",
    repeat_fed_by_cte="WITH a AS (SELECT repeat('x', 10000) AS t) SELECT repeat(t, 10000) FROM a",
    repeat_fed_by_from="SELECT repeat(t, 10000) FROM (SELECT repeat('x', 10000) AS t) q",
    repeat_fed_by_function="SELECT u FROM repeat('x', 10000) t, repeat(t, 10000) u",
    repeat_fed_by_many=(
        "WITH a AS (SELECT repeat('x', 100) t), b AS (SELECT repeat(t, 100) t FROM a), "
        "c AS (SELECT repeat(t, 100) t FROM b), d AS (SELECT repeat(t, 100) t FROM c) SELECT t FROM d"
    ),
    pad_column="SELECT lpad('x', parts_flagged::int) FROM metrics",
    pad_length="SELECT rpad('x', length(id) * 1000000) FROM metrics",
    format_width="SELECT format('%1000000000s', 'x')",
    format_left="SELECT format('%-1000000000s', 'x')",
    format_position="SELECT format('%1$1000000000s', 'x')",
    format_star="SELECT format('%*s', 1000000000, 'x')",
    format_star_position="SELECT format('%1$*2$s', 'x', 1000000000)",
    format_sum="SELECT format('" + "%9999s" * 20 + "'" + ", 1" * 20 + ")",
    format_escaped="SELECT format(E'%\\x31000000000s', 'x')",
    format_octal="SELECT format(E'%\\0611000000000s', 'x')",
    format_dollar="SELECT format($a$%1000000000s$a$, 'x')",
    format_joined="SELECT format('%1' || '000000000s', 'x')",
    format_continued="SELECT format('%1'\n'000000000s', 'x')",
    format_reckoned="SELECT format(concat('%', 1000000000, 's'), 'x')",
    format_column="SELECT format(id, 'x') FROM metrics",
    format_parameter="SELECT format(:how, 'x')",
    format_variadic="SELECT format(VARIADIC ARRAY['%1000000000s', 'x'])",
    array_fill="SELECT cardinality(array_fill(0, ARRAY[100000000]))",
    array_fill_square="SELECT cardinality(array_fill(0, ARRAY[10000, 10000]))",
    array_fill_text="SELECT cardinality(array_fill(0, '{100000000}'))",
    array_fill_column="SELECT array_fill(0, ARRAY[parts_flagged::int]) FROM metrics",
    array_fill_reckoned="SELECT array_fill(0, ARRAY[10] || ARRAY[100000])",
    array_fill_fed="SELECT array_fill(array_fill(0, ARRAY[10000])::text, ARRAY[10000])",
    character_type="SELECT 'x'::char(10000000)",
    character_cast="SELECT CAST('x' AS pg_catalog.bpchar(10000000))",
    character_typed="SELECT character(10000000) 'x'",
    character_function="SELECT bpchar('x'::bpchar, 10000000, true)",
    bit_type="SELECT 5::bit(80000000)",
    bit_function='SELECT pg_catalog."bit"(5, 80000000)',
    translate_of_repeats="SELECT translate(repeat('x', 10000), repeat('y', 10000), 'z')",
    translate_of_sums=(
        "SELECT translate(repeat('x', 9000) || repeat('x', 9000), repeat('y', 9000) || repeat('y', 9000), 'z')"
    ),
    replace_of_repeats="SELECT replace(repeat('x', 10000), 'x', repeat('y', 10000))",
    trim_of_repeats="SELECT trim(BOTH repeat('y', 10000) || 'x' FROM repeat('x', 10000))",
    join_by_repeat="SELECT array_to_string(array_fill('x'::text, ARRAY[10000]), repeat('y', 10000))",
)
TOO_MUCH_TEXT = _refused(
    "exhaust the stack or the time of whoever reads the text",
    parentheses="SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
    five_megabytes="SELECT '" + "x" * 5_000_000 + "'",
    nots="SELECT " + "NOT " * 10_000 + "true",
    minuses="SELECT " + "- " * 10_000 + "1",
    plus_chain="SELECT " + "1+" * 20_000 + "1",
    or_chain="SELECT 1 WHERE " + "a OR " * 10_000 + "a",
    cases="SELECT " + "CASE WHEN true THEN " * 3_000 + "1" + " END" * 3_000,
    casts="SELECT 1" + "::int" * 10_000,
    arrays="SELECT " + "ARRAY[" * 25 + "1" + "]" * 25,
    subscripts="SELECT a" + "[1]" * 5_000 + " FROM data.metrics",
    joins="SELECT 1 FROM a " + "JOIN a " * 3_000 + "ON true " * 3_000,
    calls="SELECT " + "abs(" * 5_000 + "1" + ")" * 5_000,
    subqueries="SELECT * FROM " + "(SELECT * FROM " * 2_000 + "a" + ") b" * 2_000,
    comments="SELECT 1 " + "/*" * 40_000,
    unions="SELECT 1" + " UNION ALL SELECT 1" * 5_000,
    powers="SELECT 2" + "^2" * 10_000,
    time_zones="SELECT now()" + " AT TIME ZONE 'UTC'" * 4_000,
)
BOMBS = [
    Hostile(
        "series-bomb", "SELECT count(*) FROM generate_series(1, 1e12::bigint)", "timeout", "run for ever"
    ),
    Hostile(
        "recursive-bomb",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT sum(n::numeric) FROM t",
        "timeout",
        "run for ever",
    ),
    Hostile(
        "cross-join-bomb",
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE a # b = 7",
        "timeout",
        "run for ever",
    ),
    Hostile(
        "aggregate-bomb",
        "SELECT length(string_agg(md5(i::text), '')) FROM generate_series(1, 1e9::bigint) i",
        "timeout",
        "fill the memory of Postgres with one aggregate",
    ),
    Hostile(
        "factorial-bomb",
        "SELECT sum(factorial(30000 + i % 9)) FROM generate_series(1, 100000) i",
        "timeout",
        "compute for long",
    ),
    Hostile(
        "sort-bomb",
        "SELECT md5(i::text) AS m FROM generate_series(1, 1e9::bigint) i ORDER BY m",
        "timeout",
        "fill the disk with a sort",
    ),
    Hostile(
        "huge-value",
        "SELECT repeat(string_agg('x', ''), 10000) FROM generate_series(1, 100000)",
        "limit",
        "fill the memory with one value",
    ),
    Hostile(
        "huge-row",
        "SELECT repeat(string_agg('x', ''), 10000) AS a, repeat(string_agg('y', ''), 10000) AS b"
        " FROM generate_series(1, 10000)",
        "limit",
        "fill the memory with one row",
    ),
    Hostile(
        "many-bytes",
        "SELECT repeat('x', 10000) AS a FROM generate_series(1, 50000)",
        "limit",
        "fill the memory with rows",
    ),
    Hostile(
        "many-rows", "SELECT i FROM generate_series(1, 10000000) i", "limit", "fill the memory with rows"
    ),
]
OWN_FUNCTIONS = [
    Hostile(
        "own-function-writes",
        "SELECT data.hostile_insert()",
        "read-only",
        "write through a function of the data schema",
        "CREATE OR REPLACE FUNCTION data.hostile_insert() RETURNS void LANGUAGE sql "
        "AS $$INSERT INTO data.metrics (id) VALUES ('hostile')$$",
    ),
    Hostile(
        "own-function-turns-read-write",
        "SELECT data.hostile_read_write()",
        "read-only",
        "leave READ ONLY through a function of the data schema",
        "CREATE OR REPLACE FUNCTION data.hostile_read_write() RETURNS text LANGUAGE sql "
        "AS $$SELECT set_config('transaction_read_only', 'off', true)$$",
    ),
    Hostile(
        "own-function-reads-elsewhere",
        "SELECT data.hostile_clients()",
        "role",
        "read secrets through a function of the data schema",
        "CREATE OR REPLACE FUNCTION data.hostile_clients() RETURNS bigint LANGUAGE plpgsql "
        "AS $$BEGIN RETURN (SELECT count(*) FROM app.api_client); END$$",
    ),
    Hostile(
        "own-function-takes-role",
        "SELECT data.hostile_role()",
        "role",
        "become another role through a function of the data schema",
        "CREATE OR REPLACE FUNCTION data.hostile_role() RETURNS text LANGUAGE sql "
        "AS $$SELECT set_config('role', (SELECT rolname FROM pg_roles WHERE rolsuper LIMIT 1), false)$$",
    ),
    Hostile(
        "own-function-reads-file",
        "SELECT data.hostile_file()",
        "role",
        "read a file through a function of the data schema",
        "CREATE OR REPLACE FUNCTION data.hostile_file() RETURNS text LANGUAGE sql "
        "AS $$SELECT pg_read_file('postgresql.conf')$$",
    ),
    Hostile(
        "own-function-sleeps",
        "SELECT data.hostile_sleep()",
        "timeout",
        "hold a connection through a function of the data schema",
        "CREATE OR REPLACE FUNCTION data.hostile_sleep() RETURNS void LANGUAGE sql AS $$SELECT pg_sleep(600)$$",
    ),
]

HOSTILE: list[Hostile] = [
    *WRITES,
    *COMMANDS,
    *TRICKS,
    *SLEEPS,
    *SERVER,
    *TEXT_RUNNERS,
    *ELSEWHERE,
    *WRITTEN_OUT,
    *MADE_LONG,
    *TOO_MUCH_TEXT,
    *BOMBS,
    *OWN_FUNCTIONS,
]

HONEST: dict[str, str] = {
    "constant": "SELECT 1",
    "padded": "SELECT lpad((count(*) * 1000 / 3600000)::text, 10, '0'), rpad('Total', 40, '.') FROM metrics AS m",
    "padded cases": "SELECT lpad(CASE WHEN id > '1' THEN '1000000' ELSE '20' END, 1000, ' ') FROM metrics",
    "no columns": "SELECT FROM metrics",
    "table": "TABLE metrics",
    "table limited": "TABLE data.customers ORDER BY 1 LIMIT 3",
    "values": "VALUES (1, 'a'), (2, 'b')",
    "values in parentheses": "(VALUES (1), (2)) ORDER BY 1",
    "trailing semicolons": "SELECT 1;\n; ",
    "comments everywhere": "/* a /* b */ c */ SELECT -- one\n 1 /* two */ -- three",
    "statement in a comment": "SELECT 1 -- ; DROP TABLE metrics",
    "forbidden name in a string": "SELECT 'pg_sleep(1); DELETE FROM x' AS text, $$pg_authid$$, E'\\'pg_sleep(1)'",
    "forbidden name as a label": 'SELECT 1 AS "pg_sleep(1)", 2 AS "delete"',
    "dollar strings": "SELECT $a$ it's $b$ here $a$ || $$x$$",
    "keywords as labels": 'SELECT 1 AS user, 2 AS end, 3 AS limit, 4 AS desc, 5 AS "select"',
    "group by": "SELECT alert_type, count(*) FROM metrics GROUP BY alert_type HAVING count(*) > 0 ORDER BY 2 DESC",
    "group by position": "SELECT DATE(date), SUM(obsolescence) FROM metrics GROUP BY 1 ORDER BY 1",
    "aggregates": (
        "SELECT count(DISTINCT alert_type), min(date), max(date), avg(parts_flagged), stddev(parts_flagged), "
        "bool_and(alert_type IS NULL), array_agg(id ORDER BY date DESC), string_agg(alert_type, ', ') FROM metrics"
    ),
    "filter": "SELECT count(*) FILTER (WHERE alert_type = 'Critical') AS critical FROM metrics",
    "percentiles": (
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY parts_flagged), "
        "mode() WITHIN GROUP (ORDER BY alert_type) FROM metrics"
    ),
    "grouping sets": (
        "SELECT alert_type, alert_category, count(*), grouping(alert_type) FROM metrics "
        "GROUP BY GROUPING SETS ((alert_type), (alert_category), ())"
    ),
    "rollup": "SELECT alert_type, alert_category, count(*) FROM metrics GROUP BY ROLLUP (alert_type, alert_category)",
    "cube": "SELECT alert_type, alert_category, count(*) FROM metrics GROUP BY CUBE (alert_type, alert_category)",
    "window": (
        "SELECT date, sum(parts_flagged) OVER (PARTITION BY id ORDER BY date ROWS BETWEEN 6 PRECEDING AND CURRENT "
        "ROW), lag(parts_flagged, 1) OVER w, rank() OVER w FROM metrics WINDOW w AS (PARTITION BY id ORDER BY date)"
    ),
    "window range": (
        "SELECT avg(parts_flagged) OVER (ORDER BY date RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW) "
        "FROM metrics"
    ),
    "distinct on": "SELECT DISTINCT ON (id) id, date FROM metrics ORDER BY id, date DESC NULLS LAST",
    "joins": (
        "SELECT c.type, i.interaction, count(*) FROM customers c JOIN external_interactions i USING (customer_id) "
        "LEFT JOIN products_of_discussion p ON date_trunc('month', i.date_start)::date = p.month GROUP BY 1, 2"
    ),
    "full and cross joins": (
        "SELECT * FROM customers a FULL OUTER JOIN customers b ON a.customer_id = b.customer_id CROSS JOIN "
        "products_of_discussion p"
    ),
    "natural join in parentheses": "SELECT * FROM (customers NATURAL JOIN external_interactions) AS j",
    "lateral": (
        "SELECT c.customer_id, last.date_start FROM customers c CROSS JOIN LATERAL (SELECT i.date_start FROM "
        "external_interactions i WHERE i.customer_id = c.customer_id ORDER BY 1 DESC LIMIT 1) AS last"
    ),
    "with": (
        "WITH daily AS (SELECT DATE(date) AS day, count(*) AS n FROM metrics GROUP BY 1), "
        "best(day, n) AS MATERIALIZED (SELECT * FROM daily ORDER BY n DESC LIMIT 1) "
        "SELECT d.day, d.n, best.n FROM daily d, best"
    ),
    "recursive": (
        "WITH RECURSIVE days(day) AS (VALUES (DATE '2025-06-01') UNION ALL SELECT day + 1 FROM days "
        "WHERE day < DATE '2025-06-30') SELECT day, count(m.id) FROM days LEFT JOIN metrics m ON "
        "m.date::date = days.day GROUP BY day"
    ),
    "recursive search": (
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) "
        "SEARCH DEPTH FIRST BY n SET path SELECT * FROM t ORDER BY path"
    ),
    "shadowed catalog name": "WITH pg_class AS (SELECT 1 AS a) SELECT a FROM pg_class",
    "nested with": "WITH a AS (WITH b AS (SELECT 1 AS x) SELECT x FROM b) SELECT * FROM a, (WITH c AS (SELECT 2) TABLE c) q",
    "set operations": (
        "(SELECT id FROM metrics UNION ALL SELECT 'x') EXCEPT SELECT 'y' INTERSECT SELECT 'z' ORDER BY 1 LIMIT 5 OFFSET 0"
    ),
    "fetch first": "SELECT id FROM metrics ORDER BY date FETCH FIRST 3 ROWS ONLY",
    "fetch with ties": "SELECT id FROM metrics ORDER BY date FETCH FIRST 3 ROWS WITH TIES",
    "subqueries": (
        "SELECT (SELECT max(date) FROM metrics), EXISTS (SELECT 1 FROM customers), ARRAY(SELECT id FROM metrics) "
        "WHERE 1 IN (SELECT customer_id FROM customers) OR 1 = ANY (SELECT 2) OR 2 > ALL (VALUES (1))"
    ),
    "case": (
        "SELECT CASE alert_type WHEN 'Critical' THEN 1 ELSE 0 END, CASE WHEN parts_flagged > 3 THEN 'many' END "
        "FROM metrics"
    ),
    "conditionals": "SELECT coalesce(alert_type, 'none'), nullif(id, ''), greatest(1, 2), least(1, 2) FROM metrics",
    "casts": "SELECT '1'::int, CAST('1.5' AS numeric(10, 2)), 1::DECIMAL(10,2), DATE '2025-01-01', '{1,2}'::int[], 1::text",
    "character types": "SELECT 'a'::varchar(3), 'b'::character varying(4), 'c'::char, 'd'::bpchar, 'e'::pg_catalog.text",
    "timestamps": "SELECT TIMESTAMP '2025-01-01 10:00', now()::timestamp(3) with time zone, '10:00'::time(0)",
    "at time zone": "SELECT date AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Madrid' FROM metrics",
    "intervals": "SELECT now() - INTERVAL '30' DAY, INTERVAL '1 month 2 days', interval '1' hour * 3, make_interval(days => 3)",
    "clock": "SELECT now(), CURRENT_DATE, CURRENT_TIMESTAMP(0), LOCALTIMESTAMP, clock_timestamp(), current_time",
    "extract": "SELECT EXTRACT(EPOCH FROM date), extract(isodow from date), date_part('year', date) FROM metrics",
    "date functions": (
        "SELECT date_trunc('week', date), to_char(date, 'YYYY-MM'), age(now(), date), date_bin('15 minutes', date, "
        "TIMESTAMP '2001-01-01'), to_date('01/02/2025', 'DD/MM/YYYY'), make_date(2025, 1, 2) FROM metrics"
    ),
    "overlaps": "SELECT (DATE '2025-01-01', DATE '2025-02-01') OVERLAPS (DATE '2025-01-15', INTERVAL '10 days')",
    "series": "SELECT day::date FROM generate_series('2025-06-01'::date, '2025-06-30', '1 day') AS day",
    "series without as": "SELECT g.n, g.ord FROM generate_series(1, 3) WITH ORDINALITY g(n, ord)",
    "unnest": "SELECT u.x, u.y FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) AS u(x, y)",
    "rows from": "SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(5, 7)) AS r(a, b)",
    "values as a table": "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t(n, label) WHERE n = 1",
    "values without as": "SELECT t.n FROM (VALUES (1), (2)) t(n)",
    "text": (
        "SELECT upper(id), substring(id from 1 for 3), trim(both ' ' from id), position('c' in id), id || '-' || "
        "lpad(id, 5, '0'), left(id, 2), right(id, 2), split_part(id, '-', 1), overlay(id placing 'x' from 1), "
        "format('%s %I', id, id), concat_ws(',', id, 'x'), initcap(id), md5(id) FROM metrics"
    ),
    "types before strings": "SELECT macaddr '08:00:2b:01:02:03' AS a, path '((0,0),(1,1))', varbit '101' = B'101'",
    "national": "SELECT N'it''s', 'a'::national character(3), cast(id AS national char varying(9)) FROM metrics",
    "similar substring": "SELECT substring(id SIMILAR '%#\"c_#\"%' ESCAPE '#') FROM metrics",
    "bases": "SELECT 0o17 + 0b101 + 0x1F + 1_000",
    "zone by function": "SELECT timezone('utc', now()) - timezone('utc', date) FROM metrics",
    "patterns": (
        "SELECT id FROM metrics WHERE id LIKE 'c%' AND id ILIKE 'C%' AND id NOT LIKE '%!_%' ESCAPE '!' AND id ~ '^c' "
        "AND id !~* 'z' AND id SIMILAR TO 'c(m|w)%' AND starts_with(id, 'c') AND regexp_replace(id, '[0-9]', '', 'g') <> ''"
    ),
    "predicates": (
        "SELECT 1 FROM metrics WHERE date BETWEEN '2025-06-01' AND '2025-06-30' AND alert_type IS DISTINCT FROM 'x' "
        "AND (id, alert_type) IN (('a', 'b')) AND NOT (parts_flagged IS NULL) AND (1 = 1) IS TRUE AND id = ANY('{a,b}')"
    ),
    "between symmetric": "SELECT 2 BETWEEN SYMMETRIC 3 AND 1",
    "arrays": "SELECT (ARRAY[1, 2, 3])[1:2], (ARRAY[[1, 2], [3, 4]])[1][2], array_length('{1,2}'::int[], 1), 1 = ANY (ARRAY[1])",
    "json reading": (
        """SELECT j -> 'a', j ->> 'b', j #>> '{a,b}', j @> '{"a": 1}', j ? 'a', j ?| ARRAY['a'], jsonb_path_query(j, '$.a') """
        """FROM (SELECT '{"a": {"b": 1}}'::jsonb AS j) q"""
    ),
    "json building": (
        "SELECT json_build_object('a', 1), jsonb_agg(id), to_jsonb(m), row_to_json(m), json_object_agg(id, date) "
        "FROM metrics m GROUP BY m.*"
    ),
    "json rows": """SELECT * FROM jsonb_to_recordset('[{"a": 1}]') AS t(a int, b numeric(10, 2))""",
    "json elements": "SELECT e.value ->> 'a' FROM jsonb_array_elements('[{\"a\": 1}]') e",
    "json table": """SELECT * FROM JSON_TABLE('[{"a": 1}]'::jsonb, '$[*]' COLUMNS (a int PATH '$.a')) AS t""",
    "rows": "SELECT ROW(1, 'a'), (c).type, c.* FROM customers c",
    "ranges": "SELECT daterange('2025-01-01', '2025-02-01') @> DATE '2025-01-05', int4range(1, 5) * int4range(3, 9)",
    "operators": "SELECT 7 % 2, 2 ^ 3, 5 & 3, 5 | 3, 5 # 3, ~1, 1 << 2, 8 >> 1, -5, 7 / 2, 2 * -3, |/ 16.0",
    "qualified operator": "SELECT 1 OPERATOR(pg_catalog.+) 2",
    "qualified function": "SELECT pg_catalog.lower('A'), pg_catalog.count(*) FROM metrics",
    "quoted function": 'SELECT "lower"(\'A\'), "sum"(parts_flagged) FROM metrics',
    "collation": 'SELECT id COLLATE "C" FROM metrics ORDER BY id COLLATE pg_catalog."C" DESC',
    "numbers": "SELECT 1e5, .5, 1., 0.25e-3, -1, 10000000000000000000000",
    "bit and hex strings": "SELECT B'101', X'1F'",
    "math": "SELECT round(avg(parts_flagged), 2), ceil(1.2), width_bucket(5, 0, 10, 5), random() < 2, power(2, 3) FROM metrics",
    "sample": "SELECT count(*) FROM metrics TABLESAMPLE bernoulli (50) REPEATABLE (1)",
    "uuid": "SELECT gen_random_uuid() IS NOT NULL, '00000000-0000-0000-0000-000000000000'::uuid",
    "text search": "SELECT to_tsvector('english', alert_type) @@ plainto_tsquery('english', 'alert') FROM metrics",
    "claims": "SELECT id FROM metrics WHERE id = current_setting('request.claims', true)::jsonb ->> 'sub'",
    "schema of columns": "SELECT data.metrics.id, metrics.date FROM data.metrics",
    "other letters": 'SELECT 1 AS größe, 2 AS "日本", 3 AS año FROM metrics AS métricas',
    "long in list": "SELECT 1 FROM customers WHERE customer_id IN ("
    + ", ".join(map(str, range(2_000)))
    + ")",
    "long or": "SELECT 1 FROM customers WHERE " + " OR ".join(f"customer_id = {n}" for n in range(300)),
    "deep enough": "SELECT " + "(" * 25 + "1" + ")" * 25,
    "window lines": "SELECT\r\n\t1\r\n-- done\r\n",
    "nothing of a table": "SELECT count(*) FROM metrics WHERE false",
    "type of": "SELECT pg_typeof(id), pg_size_pretty(1024::bigint) FROM metrics LIMIT 1",
    "array of rows": "SELECT array_agg(c ORDER BY c.customer_id) FROM customers c",
    "only": "SELECT * FROM ONLY data.metrics",
    "function aliases": "SELECT w FROM regexp_split_to_table('a b', ' ') w, string_to_table('a,b', ',') AS s(part)",
}

PARAMETERISED: dict[str, str] = {
    "named": "SELECT id FROM metrics WHERE date BETWEEN :start_date AND :end_date",
    "cast": "SELECT id FROM metrics WHERE parts_flagged > cast(:least as integer) AND date >= :since::date",
    "in an array": "SELECT id FROM metrics WHERE id = ANY(:ids)",
    "beside slices": "SELECT (ARRAY[1, 2, 3])[1:2], :name::text",
    "twice": "SELECT :day::date, :day::date + 1",
    "reserved words": "SELECT :user::text, :limit::int LIMIT :limit",
}

STORED: dict[str, str] = {
    "daily cost": """-- Total obsolescence cost avoided over the last 30 days
SELECT
  DATE(date)          AS day,
  SUM(obsolescence)   AS cost_avoided
FROM metrics
WHERE id = 'cmcw1zaxw0003p1qk1fo9ss8m'
  AND date >= CURRENT_DATE - INTERVAL '30' DAY
GROUP BY DATE(date)
ORDER BY day;""",
    "alerts by type": """-- Count of total alerts by type in June 2025
SELECT
  alert_type,
  COUNT(*) AS total_alerts
FROM metrics
WHERE id = 'cmcw3crxh0001poqkt5ctjjb0'
  AND DATE(date) BETWEEN '2025-06-01' AND '2025-06-30'
GROUP BY alert_type;""",
    "flagged in a week": """-- Total parts flagged and average per day over last week
SELECT
  SUM(parts_flagged)          AS total_flagged,
  AVG(parts_flagged)::DECIMAL(10,2) AS avg_per_day
FROM metrics
WHERE id = 'cmcw3etd80002poqk6era3ko9'
  AND date >= CURRENT_DATE - INTERVAL '7' DAY;""",
    "daily values": """-- Daily obsolescence values for plotting
SELECT
  DATE(date)        AS day,
  obsolescence_val  AS amount
FROM metrics
WHERE id = 'cmcxgnpq10001wpqk36vpzseb'
  AND date BETWEEN '2025-06-02' AND '2025-06-25'
ORDER BY day;""",
    "approvals a day": """-- Daily counts of 'Need approval' alerts in June 2025
SELECT
  DATE(date)        AS day,
  COUNT(*)          AS need_approval_count
FROM metrics
WHERE id = 'cmcxhohny0001ykqk3fnzs1qy'
  AND alert_category = 'Need approval'
  AND DATE(date) BETWEEN '2025-06-02' AND '2025-06-25'
GROUP BY DATE(date)
ORDER BY day;""",
}
