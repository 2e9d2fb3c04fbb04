"""The site of these pages: `make docs`. It needs no network, and any warning is an error."""

import re
import shutil

from sphinx.application import Sphinx

from service import __version__

project = "Tally"
author = "The authors of Tally"
version = release = __version__
extensions = ["myst_parser"]
root_doc = "quick-start"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
smartquotes = False  # it makes one dash of the two of an option
html_theme = "furo"
html_title = f"Tally {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
suppress_warnings = ["misc.highlighting_failure"]  # Pygments does not know the $$ of Postgres

CONTENTS = """
```{toctree}
:hidden:

Quick start <self>
architecture
parameters
imports
freshness
live
pages
alerts
security
operations
deployment
scaling
customers
reference
```
"""
"""The order of the pages, which only the site needs."""


def complete(app: Sphinx, name: str, source: list[str]) -> None:  # noqa: ARG001 (Sphinx's signature)
    """Add the contents; files outside of this folder become downloads."""
    text = re.sub(r"\]\(\.\./", "](path:../", source[0])
    if name == root_doc:
        text += CONTENTS
    source[0] = text


def add_index(app: Sphinx, error: Exception | None) -> None:
    """The address of the folder shows the first page."""
    if error is None:
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    app.connect("source-read", complete)
    app.connect("build-finished", add_index)
