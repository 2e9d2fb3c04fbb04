"""What the tests of metrics share."""

import httpx

FACTS = """
    INSERT INTO data.metrics (id, date, alert_type, parts_flagged) VALUES
    ('a', '2025-06-01 08:00', 'Critical', 1), ('a', '2025-06-30 23:30', 'Warning', 2),
    ('a', '2025-07-01 00:00', 'Warning', 4), ('a', '2025-05-31 23:59', 'Info', 8)
"""
JUNE = """-- Alerts in June
SELECT alert_type, count(*) AS n FROM metrics
WHERE id = 'a' AND date(date) BETWEEN '2025-06-01' AND '2025-06-30'
GROUP BY alert_type ORDER BY alert_type;"""

EXACT = ["12345678901234567890.12", "9007199254740993", "0.1000000000000000055511151231257827"]


def problem(answer: httpx.Response) -> dict:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    return body
