"""Read a sentence by rules: words, dates, names, then their roles. No I/O."""
