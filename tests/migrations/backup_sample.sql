-- A row in each table that `tally export` writes, of values that a copy by way of another language would change.

INSERT INTO catalog.query VALUES ('q1', E'SELECT ''"\\\n\t€😀\u2028''', true, '2025-01-02 03:04:05.678901+02', 'infinity'),
    ('q2', 'SELECT count(*) FROM metrics', false, now(), now());
INSERT INTO catalog.metric (id, query_id, title, is_editable, fresh_for_s, stale_for_s, parameters, version, "window",
    refresh_every_s)
VALUES ('11111111-1111-1111-1111-111111111111', 'q1', NULL, false, 0, NULL,
        '{"n": {"type": "numeric", "default": 123456789012345678901234567890.1234567890}, "z": {"default": 1.000}}', 7,
        'off', 0.1),
    ('22222222-2222-2222-2222-222222222222', 'q2', 'Two', true, NULL, 5, '{}', 1, 'auto', 1e-7);
UPDATE catalog.metric SET title = 'Zwei' WHERE query_id = 'q2';
UPDATE catalog.query SET sql = 'SELECT 2' WHERE id = 'q2';
INSERT INTO catalog.origin VALUES ('22222222-2222-2222-2222-222222222222', 1, 'how many', 'rules', NULL, now());
INSERT INTO catalog.lingering VALUES ('\xdeadbeef00000000000000000000000000000000000000000000000000000000', true, 2,
    NULL, now());
UPDATE catalog.dashboard SET title = 'Start';
INSERT INTO catalog.dashboard VALUES ('team', NULL, now());
INSERT INTO catalog.layout_item VALUES ('default', '11111111-1111-1111-1111-111111111111', 'lg', 0, 1, 2, 3, true),
    ('team', '22222222-2222-2222-2222-222222222222', 'md', 4, 5, 6, 7, false);
INSERT INTO catalog.tile VALUES ('team', '22222222-2222-2222-2222-222222222222', 'line');
INSERT INTO app.link (dashboard_id, parameters, embed, created_by, expires_at, revoked_at)
VALUES ('team', '{"day_range": 1e2}', '{https://a.example}', 'me', now(), 'infinity');
CREATE TABLE public.orders (id bigint PRIMARY KEY, kind text, gone_at timestamptz);
INSERT INTO imports.dataset VALUES ('orders', 'public', 'orders', '{id}', '{kind}',
    '{"DROP POLICY IF EXISTS tally_present ON public.orders"}', now());
CREATE TABLE quarantine.orders (LIKE quarantine.row INCLUDING ALL);
ALTER TABLE quarantine.row ATTACH PARTITION quarantine.orders FOR VALUES IN ('orders');
INSERT INTO imports.run VALUES (gen_random_uuid(), 'orders', 3, 'a.csv', 'hash', 'csv', 'utf-8', 2, 1, 0, 0, 1, 0,
    '{"orphan": 1}', '{}', '["note"]', NULL, 'me', now());
INSERT INTO quarantine.row (id, dataset, source, line, raw, original, cells, reason, message, status, waits_for,
    waits_key, import_id, import_number, created_at, closed_at)
VALUES (gen_random_uuid(), 'orders', 'a.csv', 2, 'null', 'null', '{}', 'orphan', 'waits', 'open', 'customers', '1',
        gen_random_uuid(), 3, now(), NULL),
    (gen_random_uuid(), 'customers', 'b.csv', 9, '{"n": 1.50, "m": 100000000000000000000000.1}', NULL, '{"a": "b"}',
        'wrong-type', 'no', 'discarded', NULL, NULL, gen_random_uuid(), 1, now(), '-infinity');
INSERT INTO data.vocabulary VALUES ('channel', 'email', 'Email', 2), ('channel', 'call', 'Call', 1);
INSERT INTO app.item (title, description, external_data, summary, summary_generator)
VALUES ('a', NULL, '{"x": null}', NULL, NULL), ('b', 'c', NULL, 's', 'rules');
DELETE FROM app.item WHERE title = 'a';
INSERT INTO app.api_client VALUES ('bot', repeat('a', 64), '{metrics:read,"odd scope"}', now(), NULL);
INSERT INTO app.alert_rule (metric_id, name, definition, since, was_current, problem)
VALUES ('22222222-2222-2222-2222-222222222222', 'r', '{"column": "n", "above": 1.50}', '2025-01-01', true, 'p');
INSERT INTO app.alert_secret SELECT id, 'whsec_c2VjcmV0' FROM app.alert_rule;
