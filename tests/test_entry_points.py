"""Entry points of other packages: found by name, and a bad one is named at every look-up."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import defectgen as dg
from defectgen.core import registry as registry_module
from defectgen.core.registry import Registry

PLUGIN = Path(__file__).parent / "plugin"


class TestEntryPoints:
    """A registry of its own, with one entry point."""

    @pytest.fixture(autouse=True)
    def _plugin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(PLUGIN)

    def registry(self, monkeypatch: pytest.MonkeyPatch, value: str) -> Registry[Any]:
        points = {"defectgen.proposals": [EntryPoint("mine", value, "defectgen.proposals")]}
        monkeypatch.setattr(registry_module, "entry_points", lambda group: points[group])
        made: Registry[Any] = Registry("proposal", "proposals", self.check)
        made.built_in({"first": object()})
        return made

    @staticmethod
    def check(name: str, item: Any) -> None:
        if not hasattr(item, "propose"):
            raise registry_module.breaks("proposal", name, "it has no method propose")

    def test_they_are_found_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.registry(monkeypatch, "graphene_springs.proposer:InOrder")
        assert found["mine"] is EntryPoint("part", "graphene_springs.proposer:InOrder", "").load()
        assert list(found) == ["first", "mine"]
        with pytest.raises(dg.UsageError, match="the proposal 'mine' is there already"):
            found.register("mine", found["mine"])

    @pytest.mark.parametrize("value", ["no_such_package:thing", "graphene_springs.proposer:NoSuchThing"])
    def test_one_that_cannot_be_loaded_is_named(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        found = self.registry(monkeypatch, value)
        for _ in range(2):  # the second look-up does not do without it
            with pytest.raises(dg.DefectgenError, match=rf"'mine' of the plugin {value} cannot be loaded .*Mend or un"):
                list(found)

    def test_one_that_breaks_the_protocol_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.registry(monkeypatch, "graphene_springs.host:GRAPHENE")
        for _ in range(2):
            with pytest.raises(
                dg.UsageError, match="the proposal 'mine' breaks its protocol: it has no method propose"
            ):
                list(found)
