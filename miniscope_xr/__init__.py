"""Read, prepare and check the SD cards of wire-free UCLA Miniscopes."""

__version__ = "0.1.0"
