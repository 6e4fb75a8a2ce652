"""The version of both distributions: it is written here alone, and read by their builds and the chart's."""

__version__ = "0.2.0"
