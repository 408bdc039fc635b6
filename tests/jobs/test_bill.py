"""Hours and money of a run, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.bill import bill
from schemas.prices import Prices


def test_with_gpus_cores_are_as_many_as_keep_them_busy() -> None:
    found = bill(
        clips=3_600_000,
        decode_ms=20.0,
        teacher_ms=8.0,
        on_gpu=True,
        read_bytes=5_000_000_000_000,
        stored_bytes=2_000_000_000,
        prices=Prices(core_hour=0.05, gpu_hour=2.0, gb_month=0.02),
    )
    assert (found.decode_core_hours, found.teacher_gpu_hours) == (20.0, 8.0)
    assert found.decode_cores_a_gpu == 2.5
    assert [(f.gpus, f.cores) for f in found.fleets] == [(1, 3), (8, 20), (64, 160)]
    assert [f.hours for f in found.fleets] == pytest.approx([8.0, 1.0, 0.125])
    assert (found.cores_money, found.gpus_money) == (1.0, 16.0)
    assert found.storage_money_a_month == pytest.approx(0.04)
    text = found.to_text()
    assert "2.5 cores that decode keep one GPU busy" in text and "8 GPUs and 20 cores: 1 h 0 min" in text
    assert "1.00 for cores, 16.00 for GPUs, 0.04 for storage, a month" in text


def test_without_gpus_cores_do_both_and_no_price_is_no_money() -> None:
    found = bill(clips=3600, decode_ms=500.0, teacher_ms=1500.0, on_gpu=False, read_bytes=1, stored_bytes=1)
    assert found.decode_cores_a_gpu is None and found.teacher_gpu_hours == 0
    assert [f.hours for f in found.fleets] == pytest.approx([2.0, 0.25, 2 / 64])
    assert found.cores_money is found.gpus_money is found.storage_money_a_month is None
    assert "prices" not in found.to_text() and "GPU" not in found.to_text()


@given(decode=st.floats(0.1, 1e3), teacher=st.floats(0.1, 1e3))
def test_no_fleet_waits_for_its_decoders(decode: float, teacher: float) -> None:
    found = bill(clips=10**6, decode_ms=decode, teacher_ms=teacher, on_gpu=True, read_bytes=0, stored_bytes=0)
    for fleet in found.fleets:
        assert fleet.hours == pytest.approx(found.teacher_gpu_hours / fleet.gpus)
