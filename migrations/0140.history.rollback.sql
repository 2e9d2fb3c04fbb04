DROP TABLE app.result_history;
DROP TABLE app.history_series;
