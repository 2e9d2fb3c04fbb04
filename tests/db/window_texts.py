"""Statements as dashboards have them; in them `[[column]]` stands for a window, written as in WINDOWS.

OFFERED move as a whole; each of REFUSED has something else that may speak of the same period.
"""

from pathlib import Path

TABLES = """
CREATE TABLE data.orders AS
SELECT n AS id, n % 17 AS customer_id, (ARRAY['paid', 'open', 'returned'])[n % 3 + 1] AS status,
       (ARRAY['web', 'shop'])[n % 2 + 1] AS channel, n % 5 AS store_id, (n * 7 % 100 + 1)::numeric AS amount,
       (n * 3 % 50)::numeric AS cost, n % 4 + 1 AS quantity, at AS created_at,
       at + (n % 40) * interval '3 hours' AS shipped_at,
       CASE WHEN n % 6 > 0 THEN at + (n % 90) * interval '11 hours' END AS delivered_at,
       at::date AS day
FROM (SELECT row_number() OVER ()::int AS n, at
      FROM (SELECT generate_series(timestamp '2025-01-01 01:00', '2025-08-31', '7 hours')
            UNION ALL
            SELECT generate_series(CURRENT_DATE - interval '100 days', now() + '2 days', '7 hours')) AS s(at)
     ) AS moments;
CREATE TABLE data.tickets AS
SELECT id, store_id AS team, status AS state, amount::int AS score,
       created_at AT TIME ZONE 'UTC' AS opened_at,
       shipped_at AT TIME ZONE 'UTC' AS replied_at, delivered_at AT TIME ZONE 'UTC' AS resolved_at
FROM data.orders;
CREATE TABLE data.users AS
SELECT customer_id AS id, 'user ' || customer_id AS name, min(created_at) AS signed_up_at,
       (ARRAY['free', 'pro'])[customer_id % 2 + 1] AS plan
FROM data.orders GROUP BY customer_id
"""

WINDOWS = {
    "days": "{0} BETWEEN '2025-02-01' AND '2025-02-28'",
    "half open": "{0} >= '2025-02-01' AND {0} < '2025-03-01'",
    "cast": "{0}::date BETWEEN DATE '2025-02-01' AND DATE '2025-02-28'",
    "other spellings": "{0} >= '20250201' AND {0} < '2025/03/01'",
    "days by function": "{0} >= timezone('utc', now()) - interval '30 days'",
    "since": "{0} >= '2025-02-01'",
    "last days": "{0} >= now() - interval '30 days'",
    "last days of the calendar": "{0} >= CURRENT_DATE - INTERVAL '30' DAY",
    "up to today": "{0} BETWEEN CURRENT_DATE - 30 AND CURRENT_DATE",
    "last month": "{0} >= date_trunc('month', now()) - interval '1 month'"
    " AND {0} < date_trunc('month', now())",
}


def _statements(name: str) -> list[str]:
    lines = Path(__file__).with_name(name).read_text().splitlines()
    return [line.removesuffix(";") for line in lines if not line.startswith("--")]


OFFERED = _statements("offered_windows.sql")
REFUSED = _statements("refused_windows.sql")
