DROP TABLE data.products_of_discussion;
DROP TABLE data.external_interactions;
DROP TABLE data.customers;
DROP TABLE data.metrics;
