"""An open card and its recordings."""

from miniscope_xr.card.card import OpenCard
from miniscope_xr.card.recording import OpenRecording

__all__ = ["OpenCard", "OpenRecording"]
