"""Readers of tables, configurations, cards and adapters on spoiled files: a value that is right, or one clear line.

The full numbers are a job (`-m job`); docs/reliability.md has their figures. The same seed spoils the same way.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import is_finite, mutate, outcome
from safetensors.torch import save_file

from defectgen.config import load_config, package_folder
from defectgen.core.crystal import volume_fraction
from defectgen.core.properties import COLUMNS
from defectgen.data.asset_cards import CARD_PACKAGE, Card, parse_card
from defectgen.design.targets import read_targets
from defectgen.io.documents import read_text
from defectgen.io.yaml_documents import YAML_BYTES
from defectgen.llm.adapter import LORA_CONFIG, METADATA, WEIGHTS, AdapterCard, read_adapter, training_configurations
from defectgen.llm.adapter_weights import read_weights
from defectgen.llm.lora_config import read_lora
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS
from defectgen.tasks.bulk.crystal_text import parse_crystal, write_crystal
from defectgen.tasks.defect.encodings import get_encoding
from defectgen.tasks.grammar import END, Grammar

SEED = 15


def counts(usual: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [usual, pytest.param(full, marks=[pytest.mark.slow, pytest.mark.job])])


def summary(what: str, count: int, accepted: int) -> None:
    """Printed with -s, for docs/reliability.md."""
    print(f"{what}: {count} spoiled, {accepted} still read, {count - accepted} refused with one line")
    assert 0 < accepted < count, "the changes are too weak or too strong to tell anything"


TABLES = [
    "id,homo,lumo\na,0.05,1.15\nb,-0.2,0.9\nc,,1.2\n",
    "homo_ev,lumo_ev,band_gap_ev,formation_energy_ev\n0.1,1.2,,2.5\n0.15,1.3,1.15,\n",
    "\ufeffid,band-gap\r\n1,1.1\r\n2,0.7\r\n",
    'id,homo,band-gap\n"a, b",0.1,0.5:0.8\n"c ""d""",0.2*3,1.1+-0.2\n',
    "- {id: a, homo: 0.05, band_gap: '0.5:0.8'}\n- {id: b, lumo: 1.2*2}\n",
]


@counts(100, 2000)
def test_tables_of_targets(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng([SEED, 1])
    accepted = 0
    for number in range(count):
        file = tmp_path / ("targets.yaml" if TABLES[number % len(TABLES)].startswith("-") else "targets.csv")
        content = mutate(TABLES[number % len(TABLES)].encode(), rng, most=3)
        file.write_bytes(content)
        targets = outcome(partial(read_targets, file), f"table {number} {content!r}")
        if targets is None:
            continue
        accepted += 1
        assert targets
        assert len({target.id for target in targets}) == len(targets)
        for target in targets:
            assert {column for column, _ in target.values} <= set(COLUMNS)
            assert all(
                math.isfinite(x) or wish.towards for (_, x), wish in zip(target.values, target.wishes, strict=True)
            )
            assert all(math.isfinite(wish.weight) for wish in target.wishes), content
    summary("tables of targets", count, accepted)


@counts(60, 1000)
def test_configurations(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng([SEED, 2])
    files = [file.read_bytes() for file in sorted(package_folder("defectgen_configs").glob("*/*.yaml"))]
    accepted, file = 0, tmp_path / "run.yaml"
    for number in range(count):
        lines = files[number % len(files)].splitlines(keepends=True)
        content = mutate(b"".join(line for line in lines if not line.startswith(b"#")), rng, most=2)
        file.write_bytes(content)
        config = outcome(partial(load_config, FinetuneConfig, file), f"configuration {number} {content!r}")
        if config is not None:
            accepted += 1
            assert is_finite(config.model_dump()), content
            assert FinetuneConfig.model_validate(config.model_dump()) == config
    summary("configurations", count, accepted)


def card_of(file: Path, name: str) -> Card:
    return parse_card(read_text(file, YAML_BYTES), name)


@counts(50, 500)
def test_cards(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng([SEED, 3])
    files = sorted(package_folder(CARD_PACKAGE).glob("*.yaml"))
    accepted, place = 0, tmp_path / "card.yaml"
    for number in range(count):
        name, content = files[number % len(files)].name, files[number % len(files)].read_bytes()
        content = mutate(content, rng, most=2)
        place.write_bytes(content)
        card = outcome(partial(card_of, place, name), f"card {number} {content!r}")
        if card is not None:
            accepted += 1
            assert card.name == Path(name).stem
            assert all(not Path(path).is_absolute() and ".." not in Path(path).parts for path in card.expected_files())
    summary("cards", count, accepted)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of one matrix, as it is written by training."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {f"{prefix}.lora_A.weight": torch.ones(2, 6), f"{prefix}.lora_B.weight": torch.ones(6, 2)}
    save_file(weights, folder / WEIGHTS)
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "peft_type": "LORA", "layer_replication": None}
    (folder / LORA_CONFIG).write_text(json.dumps(settings, indent=1))
    (folder / "training_configurations.json").write_text(json.dumps({"MoS2 8x8": ["VAC@A00", "Se@B12"]}))
    data = {
        "settings": {"copies": 1, "seed": 3},
        "records": {"train/MoS2": 4},
        "max_atoms": 20,
        "elements": ["Mo", "S"],
    }
    ranges = {"MoS2": {"homo_ev": [0.01, 0.4], "lumo_ev": [1.0, 1.9]}}
    version = get_encoding("edits").version
    card = AdapterCard("smollm2-135m", "edits", version, ("MoS2",), {"MoS2": 3}, ranges, data, {"steps": 3})
    (folder / METADATA).write_text(json.dumps(asdict(card), indent=1))
    return folder


def use(folder: Path) -> tuple[AdapterCard, list[torch.Tensor]]:
    """All that is read of an adapter before a base model is there."""
    card = read_adapter(folder)
    weights = read_weights(folder, read_lora(folder))
    training_configurations(folder)
    return card, list(weights.values())


@counts(50, 500)
def test_adapters_without_checksums(count: int, adapter: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng([SEED, 4])
    names = sorted(path.name for path in adapter.iterdir())
    assert use(adapter)
    accepted = 0
    for number in range(count):
        folder = tmp_path / "spoiled"
        shutil.copytree(adapter, folder)
        name = names[number % len(names)]
        (folder / name).write_bytes(mutate((folder / name).read_bytes(), rng, most=1))
        found = outcome(partial(use, folder), f"adapter {number}, {name}")
        if found is not None:
            accepted += 1
            card, weights = found
            assert is_finite(asdict(card))
            assert all(bool(torch.isfinite(weight).all()) for weight in weights)
        shutil.rmtree(folder)
    summary("adapters", count, accepted)


def walk(grammar: Grammar, rng: np.random.Generator) -> list[str]:
    """Pieces of a completion, each drawn among those that may follow."""
    state, pieces = grammar.start, []
    while True:
        choices = grammar.choices(state)
        assert choices, f"no way on after {''.join(pieces)!r}"
        piece = list(choices)[int(rng.integers(len(choices)))]
        if piece == END:
            return pieces
        pieces.append(piece)
        state = choices[piece]


@counts(40, 2000)
def test_walks_through_the_grammar_of_crystals(count: int) -> None:
    """Whatever a model draws under the grammar is a crystal of real elements with a volume, and is written as drawn."""
    rng = np.random.default_rng([SEED, 5])
    longest = 0
    for number in range(count):
        most = int(rng.integers(1, 9))
        few = tuple(str(symbol) for symbol in rng.choice(MP_ELEMENTS, int(rng.integers(1, 6)), replace=False))
        grammar = BulkTask().grammar(
            most,
            elements=few if number % 2 else MP_ELEMENTS,
            formula=(few[0] + (few[1] if len(few) > 1 else "")) if number % 4 == 3 and most >= 2 else None,
            min_distance=float(rng.choice([0.0, 0.5, 1.5])),
            radii=float(rng.choice([0.0, 0.5, 0.75])),
        )

        pieces = outcome(partial(walk, grammar, rng), f"walk {number}")
        assert pieces is not None
        text = "".join(pieces)
        longest = max(longest, len(pieces))
        crystal = parse_crystal(text)
        assert write_crystal(crystal) == text
        assert 1 <= len(crystal.species) <= most
        assert set(crystal.species) <= set(few if number % 2 else MP_ELEMENTS)
        assert volume_fraction(crystal.angles) > 0
        assert is_finite([crystal.lengths, crystal.angles, *crystal.fractional])
    print(f"walks: {count} of {count} are crystals, the longest of {longest} pieces")
