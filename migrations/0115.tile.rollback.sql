DROP TABLE catalog.tile;
