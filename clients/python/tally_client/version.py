"""The version of this package: that of the Tally it was made from."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("tally-metrics-client")
except PackageNotFoundError:  # run from a checkout
    __version__ = "0"

USER_AGENT = f"tally-client/{__version__}"
