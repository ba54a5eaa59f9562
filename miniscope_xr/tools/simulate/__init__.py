"""Card images as the firmware would write them: the card factory of the tests and of the demo."""

from miniscope_xr.tools.simulate.card import blank, simulate
from miniscope_xr.tools.simulate.events import (
    BadHeight,
    Event,
    FailedWrite,
    IRStop,
    LostInterrupt,
    Padding,
    PowerLoss,
    RecordAgain,
    RemoteEdge,
    Stall,
    Truncate,
)
from miniscope_xr.tools.simulate.image import Buffer, Frame, SimulatedCard
from miniscope_xr.tools.simulate.scene import calcium_scene, noise_camera

__all__ = [
    "BadHeight",
    "Buffer",
    "Event",
    "FailedWrite",
    "Frame",
    "IRStop",
    "LostInterrupt",
    "Padding",
    "PowerLoss",
    "RecordAgain",
    "RemoteEdge",
    "SimulatedCard",
    "Stall",
    "Truncate",
    "blank",
    "calcium_scene",
    "noise_camera",
    "simulate",
]
