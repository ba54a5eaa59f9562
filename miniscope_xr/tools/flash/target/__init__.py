"""Disks and images opened for writing."""
