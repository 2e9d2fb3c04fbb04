"""The first hour with a database of one's own: connect, check, uninstall."""
