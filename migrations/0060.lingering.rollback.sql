DROP TABLE catalog.lingering;
