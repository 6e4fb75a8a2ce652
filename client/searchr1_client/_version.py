"""The version of this package, without reading what is installed."""

__version__ = "0.1.0"
