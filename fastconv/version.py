"""The version: read by the build and written into every file that the library makes."""

__version__ = "0.1.0"
