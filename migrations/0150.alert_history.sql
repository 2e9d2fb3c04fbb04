-- The history of a rule is read by its newest alerts, and trimmed by its oldest ones.

CREATE INDEX alert_rule_id_number_idx ON app.alert (rule_id, number);
