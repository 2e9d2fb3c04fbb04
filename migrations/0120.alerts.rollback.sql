DROP TABLE app.alert_delivery;
DROP TABLE app.alert;
DROP TABLE app.alert_secret;
DROP TABLE app.alert_rule;
