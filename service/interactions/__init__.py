"""Who was in touch, by which channel, how often and about what."""
