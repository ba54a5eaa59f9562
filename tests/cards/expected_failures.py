"""Real cards that the reader does not read as their truth says: the only list of them.

Each entry is a strict expected failure (``pytest.mark.xfail(strict=True)``, put on by tests/conftest.py): a card that
begins to pass fails the run until its entry is deleted, and a card that is not here has to pass.

Keys are cards of ../shared/cards; a value names a test (for all of its parameters) or one of it: ``function[bisect]``.
"""

from __future__ import annotations

EXACTLY = "test_a_real_card_is_read_exactly"
ONE_BY_ONE = "test_single_frames_of_a_real_card_are_the_frames_of_the_whole"

EXPECTED_FAILURES: dict[str, tuple[str, ...]] = {}

# cards whose every byte tools.simulate does not make yet
NOT_SIMULATED = frozenset(
    {
        "t51_v4_12_lost_irq_over_old",
        "t53_daq_11_seam_behind_doubt",
        "t54_v4_12_lowbatt_restarts",
        "t55_v4_10_failed_write_over_old",
        "u02s_timed",
        "u06s_overflow",
        "u10s_driver_timeouts",
        "u12s_timed_over_long",
        "u15s_scan_low_battery",
        "u21s_samd_temp_word1",
        "u23s_samd_13_words_powerloss",
    }
)
