DROP TABLE app.incarnation;
