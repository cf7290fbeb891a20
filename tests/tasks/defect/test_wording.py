"""The ways in which a long prompt is written, and that infill stays aligned with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectgen.core import Configuration, get_host, host_names
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import get_encoding
from defectgen.tasks.defect.wording import N_WORDINGS, PLAIN, Writing, draw_writing
from defectgen.tasks.parsing import ParseError


def test_every_wording_reads_differently() -> None:
    host = get_host("MoS2", (2, 2))
    values = {"homo_ev": 0.1}
    texts = {
        get_encoding("symbols").prompt(host, values, ("vacancy",), Writing(number)) for number in range(N_WORDINGS)
    }
    assert len(texts) == N_WORDINGS
    for text in texts:
        assert all(word in text for word in ("MoS2", "0.100", "vacancy Mo", "substitution S to Se", "VAC"))
        assert text.count("[MASK] ") - text.count("each [MASK] ") - text.count("every [MASK] ") == host.n_sites


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(host_names()), st.booleans(), st.integers(0, 10**6))
def test_prompt_and_completion_show_the_same_positions(name: str, cartesian: bool, seed: int) -> None:
    host, rng = get_host(name), np.random.default_rng(seed)
    site = int(rng.integers(host.n_sites))
    configuration = Configuration.of(host, {site: host.allowed[host.site_cell(site)[0]][0]})
    task = DefectTask("crystal", cartesian=cartesian)
    writing = task.draw_writing(configuration, rng)
    masked = [line[7:] for line in task.prompt(host, {}, (), writing).splitlines() if line.startswith("[MASK] ")]
    lines = task.completion(configuration, writing).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == masked
    assert task.parse(host, "\n".join(lines), writing) == configuration
    kept = writing.rules or host.rules
    assert set(configuration.kinds) <= {(rule.element, rule.replacement) for rule in kept}


@pytest.mark.parametrize("angle", [0.0, 17.3, 120.0, 359.9])
def test_turning_the_axes_keeps_all_distances(angle: float) -> None:
    host = get_host("GaSe")
    writing = Writing(cartesian=True, angle_deg=angle)
    shown = np.array([[float(x) for x in row.split()] for row in writing.coordinates(host)])
    cart = host.site_cart_coords
    before = np.linalg.norm(cart[:, None] - cart[None, :], axis=-1)
    after = np.linalg.norm(shown[:, None] - shown[None, :], axis=-1)
    assert np.abs(before - after).max() < 0.02  # two decimals
    assert np.abs(shown[:, 2] - cart[:, 2]).max() <= 0.005 + 1e-9
    turn = np.arctan2(*shown[7, 1::-1]) - np.arctan2(cart[7, 1], cart[7, 0])
    assert (np.degrees(turn) - angle + 180) % 360 - 180 == pytest.approx(0, abs=0.2)


def test_turned_completions_need_the_same_turn() -> None:
    host = get_host("BN", (2, 2))
    configuration = Configuration.of(host, {0: "C"})
    turned = Writing(cartesian=True, angle_deg=30.0)
    text = get_encoding("crystal").completion(configuration, turned)
    assert get_encoding("crystal").parse(host, text, turned) == configuration
    with pytest.raises(ParseError, match="coordinates differ"):
        get_encoding("crystal").parse(host, text, PLAIN)


def test_draws_come_from_the_seed_and_vary() -> None:
    host = get_host("MoS2")
    made = frozenset({("S", "VAC")})
    first = [draw_writing(host, made, True, np.random.default_rng(seed)) for seed in range(40)]
    assert first == [draw_writing(host, made, True, np.random.default_rng(seed)) for seed in range(40)]
    assert len({w.wording for w in first}) > 20
    assert len({w.angle_deg for w in first}) > 30
    assert 5 < sum(w.rules is None for w in first) < 35
