"""Tools around the reader: simulate, validate, flash, video, command line."""
