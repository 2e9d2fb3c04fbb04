"""Turn a prompt into a validated metric, by rules over the schema or by a language model."""
