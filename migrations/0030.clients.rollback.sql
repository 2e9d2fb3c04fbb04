DROP TABLE app.api_client;
