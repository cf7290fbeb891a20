"""Intervals of shares, against values of another implementation and what must hold for any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from defectgen.core.interval import counted_share, interval_95, percent_text


@given(st.integers(1, 2000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_is_scipys(counts: tuple[int, int]) -> None:
    n, of = counts
    theirs = binomtest(n, of).proportion_ci(0.95, method="wilson")
    assert interval_95(n, of) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_texts_and_what_has_no_share() -> None:
    assert percent_text(17, 200) == "8.5 %, 95 % interval 5.4 to 13.2"
    assert counted_share(0, 0)["value"] is None
    with pytest.raises(ValueError, match="got 3 of 2"):
        interval_95(3, 2)
