"""The kinds of the real firmware's cards that the simulator does not make byte for byte: it makes others of each kind.

With the project alone, without those cards, these stand for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.simulate import FailedWrite, LostInterrupt, PowerLoss, RecordAgain, Stall, simulate
from tests.cards.expected_failures import NOT_SIMULATED
from tests.cards.test_reading import differences

NEW: dict[str, Any] = {"layout": "v4-wirefree-2026"}
SCAN = {"ewl_scan_mode": 1, "ewl_scan_start": 20, "ewl_scan_stop": 220, "ewl_scan_step": 50, "ewl_scan_interval": 8}
KINDS: dict[str, dict[str, Any]] = {
    "t51_v4_12_lost_irq_over_old": {
        "old": {"frames": 30, "start_offset_ms": 26}, "frames": 9,
        "events": [LostInterrupt(0, "buffer", 1), PowerLoss(buffer=19)],
    },
    "t53_daq_11_seam_behind_doubt": {
        "old": {"layout": "daq-wirefree", "frames": 12, "start_offset_ms": 1500},
        "layout": "daq-wirefree", "frames": 9, "events": [PowerLoss(buffer=32)],
    },
    "t54_v4_12_lowbatt_restarts": {"frames": 5, "battery": 150, "events": [RecordAgain(3), RecordAgain(7)]},
    "t55_v4_10_failed_write_over_old": {
        "old": {"build": "f70f880", "frames": 26, "start_offset_ms": 61}, "build": "f70f880", "frames": 20,
        "events": [FailedWrite(37)],
    },
    "u02s_timed": {**NEW, "seconds": 2, "settings": {"fs": 15}},
    "u06s_overflow": {**NEW, "frames": 40, "driver_waits": True, "events": [Stall(buffer=120, sector=20, ms=95)]},
    "u10s_driver_timeouts": {**NEW, "frames": 40, "events": [Stall(buffer=60, sector=17, ms=75)]},
    "u12s_timed_over_long": {"old": {**NEW, "frames": 60}, **NEW, "seconds": 1.5, "start_offset_ms": 36},
    "u15s_scan_low_battery": {**NEW, "frames": 40, "settings": {"fs": 0, **SCAN}, "events": [PowerLoss(buffer=172)]},
    "u21s_samd_temp_word1": {"layout": "samd-framework", "seconds": 2},
    "u23s_samd_13_words_powerloss": {
        "layout": "samd-framework", "build": "13 words", "frames": 40, "events": [PowerLoss(buffer=52, torn_sectors=9)],
    },
}  # fmt: skip


def test_every_kind_is_here() -> None:
    assert set(KINDS) == NOT_SIMULATED


@pytest.mark.parametrize("index", ["bisect", "scan"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_card_of_the_kind_is_read_exactly(kind: str, index: str, tmp_path: Path) -> None:
    given = dict(KINDS[kind])
    old = given.pop("old", None)
    card = simulate(seed=6, under=simulate(seed=7, **old) if old else None, **given)
    assert differences(card, tmp_path / "card.img", index=index) == []
