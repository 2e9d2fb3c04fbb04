DROP TABLE app.reader;
