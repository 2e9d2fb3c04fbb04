"""From a metric and what a caller gives to finished bytes: one way for every kind of request."""
