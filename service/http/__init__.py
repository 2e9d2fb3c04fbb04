"""HTTP code that all routes share."""
