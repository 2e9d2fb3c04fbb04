DROP TRIGGER touch_metrics ON catalog.query;
DROP FUNCTION catalog.touch_metrics();
DROP TRIGGER keep_version ON catalog.metric;
DROP FUNCTION catalog.keep_version();
DROP TABLE catalog.metric_version;
