"""A sentence read by rules: words, dates and names, then who does what; pure."""
