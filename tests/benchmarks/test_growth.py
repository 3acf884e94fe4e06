"""What the benchmark of growth says of known times."""

import pytest

from bccd_d2.errors import InputError
from benchmarks.bench_growth import draw, measured, row


def test_growth_is_compared_with_linear():
    # 1, 6 and 48 s: three times what is linear from the first on, twice from the second on.
    found = {1: (1.0, 10.0), 4: (6.0, 20.4), 16: (48.0, 40.0)}
    assert row("conversion", "more cells", found) == [
        *("conversion", "more cells", "1", "6", "48", "3.00", "2.00", "10 / 20 / 40")
    ]


def test_a_stage_is_measured_in_a_process_of_its_own(tmp_path):
    smears, data, cells = draw(tmp_path, 2, 200, 150, seed=1)
    assert cells > 0
    seconds, megabytes = measured("conversion", smears, data, rounds=2)
    assert 0 < seconds < 60 and 0 <= megabytes < 1000
    with pytest.raises(InputError, match="conversion: its process ended without a result"):
        measured("conversion", tmp_path / "nowhere", data, rounds=1)
