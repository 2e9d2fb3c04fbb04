"""A sentence becomes a judged, stored metric: by rules over the schema, or by a language model."""
