DROP TABLE app.link;
