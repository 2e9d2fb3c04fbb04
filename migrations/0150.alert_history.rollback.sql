DROP INDEX app.alert_rule_id_number_idx;
