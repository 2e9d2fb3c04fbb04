"""A copy of what people made in Tally, in one file: `tally export` and `tally restore`. docs/operations.md
describes the file.
"""
