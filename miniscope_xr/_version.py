"""The version, alone: everything may say it without importing anything else."""

__version__ = "0.1.0"
SOFTWARE = f"miniscope-xr {__version__}"  # what files say they were written by
