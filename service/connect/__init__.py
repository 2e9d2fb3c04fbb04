"""What other tools read: values for Prometheus."""
