"""What the language model is not told is said; a shipped one is named by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

import defectgen as dg
from defectgen.design.candidates import Target
from defectgen.design.engine import Models
from defectgen.design.limits import Limits
from defectgen.design.model_notes import model_notes
from defectgen.design.request import DesignRequest
from defectgen.design.run import prepare_design
from defectgen.llm.adapter import read_adapter
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, adapter_folder, shipped

ENERGY = Target("1", (("homo_ev", 0.2), ("energy_per_atom_ev", -8.5)))
LEVELS = Target("1", (("homo_ev", 0.2),))


@pytest.mark.parametrize(
    ("host", "adapter", "target", "proposers", "said"),
    [
        ("BN", SHIPPED_CROWDED_ADAPTER, ENERGY, ("random", "llm"), ["was not trained on E/atom: it proposes without"]),
        ("BN", SHIPPED_CROWDED_ADAPTER, ENERGY, ("random", "search"), []),
        ("BN", SHIPPED_CROWDED_ADAPTER, LEVELS, ("llm",), []),
        ("MoS2", SHIPPED_ADAPTER, ENERGY, ("llm", "llm-search"), []),
        ("BN", SHIPPED_CROWDED_ADAPTER, LEVELS, ("llm-search",), ["composition, not edits: llm-search begins with"]),
        ("BN", SHIPPED_CROWDED_ADAPTER, ENERGY, ("llm-search",), ["E/atom", "its tree goes without the model's prior"]),
    ],
)
def test_a_line_for_each(host: str, adapter: str, target: Target, proposers: tuple[str, ...], said: list[str]) -> None:
    request = DesignRequest(dg.host(host), (target,))
    notes = model_notes(request, read_adapter(shipped(adapter)), adapter, proposers)
    assert len(notes) == len(said)
    assert all(part in note and adapter in note and "\n" not in note for part, note in zip(said, notes, strict=True))


def test_a_design_warns() -> None:
    warnings = prepare_design(DesignRequest(dg.host("BN"), (ENERGY,), limits=Limits(8, 12))).warnings
    [line] = [line for line in warnings if "E/atom" in line]
    assert line.startswith(f"the language model {SHIPPED_CROWDED_ADAPTER}")


def test_shipped_models_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Models(adapter=Path(SHIPPED_CROWDED_ADAPTER)).adapter == shipped(SHIPPED_CROWDED_ADAPTER)
    assert adapter_folder("bulk-smollm2") == shipped("bulk-smollm2")
    with pytest.raises(dg.DefectgenError, match=r"crowded is no trained adapter.* a shipped one: .*crowded-smollm2"):
        read_adapter(adapter_folder("crowded"))
    (tmp_path / SHIPPED_CROWDED_ADAPTER).mkdir()
    assert adapter_folder(SHIPPED_CROWDED_ADAPTER) == Path(SHIPPED_CROWDED_ADAPTER)
