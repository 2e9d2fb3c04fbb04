DROP TABLE app.item;
DROP FUNCTION app.grams(text, integer);
