DROP TABLE app.session;
