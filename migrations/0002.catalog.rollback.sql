DROP TABLE catalog.layout_item;
DROP TABLE catalog.dashboard;
DROP TABLE catalog.metric;
DROP TABLE catalog.query;
