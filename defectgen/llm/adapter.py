"""A trained adapter: LoRA weights, and beside them everything that sampling must know of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from defectgen.core import Host
from defectgen.core.stored_hosts import read_hosts
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import DocumentError, read_object
from defectgen.io.folders import write_folder
from defectgen.io.stamps import check_stamps, stamps
from defectgen.llm.adapter_text import adapter_markdown
from defectgen.models import SHIPPED_ADAPTERS
from defectgen.one_line import shown
from defectgen.tasks.bulk.crystal_text import BULK_PROMPT_VERSION
from defectgen.tasks.defect.encodings import ENCODINGS

BULK = "bulk"
"""Encoding of the records of bulk crystals; the others are of defects in hosts."""

METADATA = "defectgen.json"
WEIGHTS = "adapter_model.safetensors"
LORA_CONFIG = "adapter_config.json"
MODEL_CARD = "README.md"
TRAINING_CONFIGURATIONS = "training_configurations.json"
CHECKED = (WEIGHTS, LORA_CONFIG, TRAINING_CONFIGURATIONS)
"""The files whose checksums stand in the card."""

AGAIN = "Get the adapter again, or train it anew with `defectgen finetune`."


@dataclass(frozen=True, repr=False)
class AdapterCard:
    """What an adapter was trained on and for.

    Attributes:
        base_model: name that `base_model_path` resolves.
        encoding: prompt encoding of its records.
        prompt_version: version of the prompts; must equal the installed one.
        hosts: hosts in the training records; none for bulk crystals.
        max_defects: for each host the most defects in a training record.
        covered_ev: for each host and property the least and largest value trained on, in eV.
        data: manifest of the records, without file list; of bulk crystals with ``max_atoms``, ``elements`` and
            ``covered`` (range of each label) of the training part.
        training: configuration and figures of the run.
        files: size and checksum of the files in the folder, see `CHECKED`; none in a card that is not written yet.
        host_records: `Host.to_dict` of each host by name and size, e.g. ``MoS2 8x8``; empty in an adapter that
            an earlier version wrote: the surrogate's host of the name stands for it then.
    """

    base_model: str
    encoding: str
    prompt_version: int
    hosts: tuple[str, ...]
    max_defects: dict[str, int]
    covered_ev: dict[str, dict[str, list[float]]]
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    host_records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"AdapterCard({self.encoding} on {self.base_model}, hosts: {', '.join(self.hosts) or 'none'})"

    def after(self, earlier: AdapterCard) -> AdapterCard:
        """The card of a run that went on from an earlier adapter: hosts, defects and ranges of both."""
        covered = {host: dict(ranges) for host, ranges in earlier.covered_ev.items()}
        for host, ranges in self.covered_ev.items():
            known = covered.setdefault(host, {})
            for column, (low, high) in ranges.items():
                old = known.get(column, [low, high])
                known[column] = [min(old[0], low), max(old[1], high)]
        hosts = tuple(sorted({*self.hosts, *earlier.hosts}))
        most = {host: max(card.max_defects.get(host, 0) for card in (self, earlier)) for host in hosts}
        records = dict(sorted((earlier.host_records | self.host_records).items()))
        data = self.data | _crystals_of_both(self.data, earlier.data) if self.is_bulk else self.data
        return replace(self, hosts=hosts, max_defects=most, covered_ev=covered, host_records=records, data=data)

    @property
    def core_hosts(self) -> tuple[Host, ...]:
        """The hosts of `host_records`.

        Raises:
            DefectgenError: one of them is damaged.
        """
        return tuple(read_hosts(self.host_records).values())

    def knows(self, host: Host) -> bool:
        """Whether it was trained on a host: the same sites in the same order, as far as the card carries them."""
        hosts = self.core_hosts
        return host.name in self.hosts and (not hosts or any(host.is_like(item) for item in hosts))

    @property
    def is_bulk(self) -> bool:
        """Whether it writes bulk crystals, not defects of a layer."""
        return self.encoding == BULK

    def write(self, folder: Path) -> None:
        """Write the card for programs, with the checksums of what is there, and the model card for people."""
        (folder / MODEL_CARD).write_text(adapter_markdown(self), encoding="utf-8")
        values = asdict(self) | {"files": stamps(folder, CHECKED)}
        (folder / METADATA).write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _crystals_of_both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Elements, largest number of atoms and ranges of labels that two sets of crystals cover together."""
    found: dict[str, Any] = {}
    if "elements" in one and "elements" in other:
        found["elements"] = sorted({*one["elements"], *other["elements"]})
    if "max_atoms" in one and "max_atoms" in other:
        found["max_atoms"] = max(one["max_atoms"], other["max_atoms"])
    ranges = [part.get("covered", {}) for part in (one, other)]
    if any(ranges):
        pairs = {name: [part[name] for part in ranges if name in part] for name in {*ranges[0], *ranges[1]}}
        found["covered"] = {
            name: [min(low for low, _ in ends), max(high for _, high in ends)] for name, ends in sorted(pairs.items())
        }
    return found


def installed_prompt_version(encoding: str) -> int | None:
    """Version of the prompts of an encoding as they are written now; None for one that is not known."""
    if encoding == BULK:
        return BULK_PROMPT_VERSION
    return ENCODINGS[encoding].version if encoding in ENCODINGS else None


DATA_KEYS = ("settings", "data_sha256", "records", "structures", "max_atoms", "elements", "covered")
"""What an adapter keeps of the manifest of its records, as far as it is there."""


def make_card(base_model: str, manifest: dict[str, Any], training: dict[str, Any]) -> AdapterCard:
    """The card of an adapter trained on the records of a manifest."""
    return AdapterCard(
        base_model=base_model,
        encoding=manifest["settings"]["encoding"],
        prompt_version=manifest["prompt_version"],
        hosts=tuple(sorted(manifest.get("max_defects", {}))),
        max_defects=manifest.get("max_defects", {}),
        covered_ev=manifest.get("covered_ev", {}),
        host_records=manifest.get("hosts", {}),
        data={key: manifest[key] for key in DATA_KEYS if key in manifest},
        training=training,
    )


def record_identity(record: dict[str, Any]) -> tuple[str, str]:
    """What a record shows, as group and key.

    Of a defect record host and supercell, and the canonical key of the configuration; of a bulk record
    ``bulk`` and the id of the crystal.
    """
    if "host" not in record:
        return BULK, record["id"]
    return f"{record['host']} {record['supercell']}", record["configuration"]


def read_adapter(folder: Path) -> AdapterCard:
    """The card of an adapter folder.

    Raises:
        DefectgenError: no adapter there, unreadable, or made for other prompts than the installed.
    """
    path = folder / METADATA
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise DefectgenError(
            f"{folder} is no trained adapter.",
            f"Expected a folder with {WEIGHTS} and {METADATA}, or the name of a shipped one: "
            f"{', '.join(SHIPPED_ADAPTERS)}.",
        )
    try:
        card = _card(read_object(path))
    except DocumentError as error:
        raise DefectgenError(f"{path}: not an adapter card ({error.reason}).", AGAIN) from error
    installed = installed_prompt_version(card.encoding)
    if card.prompt_version != installed:
        raise DefectgenError(
            f"the adapter in {folder} was trained on prompt version {card.prompt_version}, this is {installed}.",
            "Train it again with `defectgen finetune`, or install the version that made it.",
        )
    return card


def read_defect_adapter(folder: Path) -> AdapterCard:
    """The card of an adapter that writes defects.

    Raises:
        UsageError: it writes bulk crystals.
        DefectgenError: see `read_adapter`.
    """
    card = read_adapter(folder)
    if card.is_bulk:
        raise UsageError(f"the model in {folder.name} makes bulk crystals, not defects.", "Use: defectgen generate")
    return card


def _card(values: dict[str, Any]) -> AdapterCard:
    """A card from its values.

    Raises:
        DocumentError: a key that is missing or unknown, or a value of another kind.
    """
    known = [item.name for item in fields(AdapterCard)]
    if unknown := sorted(set(values) - set(known)):
        raise DocumentError("the card", f"unknown key {shown(unknown[0])}")
    try:
        card: AdapterCard = TypeAdapter(AdapterCard).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DocumentError("the card", f"{place:.60}: got {shown(first['input'])}; {first['msg']}") from error
    for host, ranges in card.covered_ev.items():
        for column, limits in ranges.items():
            if len(limits) != 2 or limits[0] > limits[1]:
                raise DocumentError("the card", f"covered_ev of {host:.30}, {column:.30}: {shown(limits)}")
    if not isinstance(settings := card.data.get("settings", {}), dict):
        raise DocumentError("the card", f"data.settings is {shown(settings)}, expected keys with values")
    elements = card.data.get("elements", [])
    if not isinstance(elements, list) or not all(isinstance(name, str) for name in elements):
        raise DocumentError("the card", f"data.elements is {shown(elements)}, expected a list of symbols")
    most = card.data.get("max_atoms", 1)
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_ATOMS:
        raise DocumentError("the card", f"data.max_atoms is {shown(most)}, expected 1 to {MOST_ATOMS}")
    return card


MOST_ATOMS = 10_000
"""Largest cell that an adapter for bulk crystals may state."""


def write_adapter(folder: Path, fill: Callable[[Path], object]) -> None:
    """Write the files of an adapter into a folder, the card last; other files stay.

    Args:
        folder: of the adapter.
        fill: writes the five files into the folder that it is given, see `AdapterCard.write` for two of them.

    Raises:
        DefectgenError: the folder cannot be written.
    """

    def readable(new: Path) -> None:
        fill(new)
        for name in (*CHECKED, MODEL_CARD):
            (new / name).chmod((new / METADATA).stat().st_mode)  # safetensors writes for the owner only

    write_folder(folder, readable, METADATA, unlisted=[*CHECKED, MODEL_CARD])


def check_adapter_files(folder: Path, names: tuple[str, ...] = CHECKED) -> None:
    """Compare the files of an adapter with the checksums in its card, if that has any.

    Raises:
        DefectgenError: a file is missing or another one than was written.
    """
    try:
        files = read_object(folder / METADATA).get("files")
    except (OSError, DocumentError) as error:
        raise DefectgenError(f"{folder / METADATA} cannot be read as an adapter card.", AGAIN) from error
    if files:
        check_stamps(folder, files, names, METADATA, AGAIN)


def training_configurations(folder: Path) -> dict[str, frozenset[str]]:
    """Keys of the structures an adapter was trained on, by group; see `record_identity`.

    Raises:
        DefectgenError: the list is missing, damaged, or not the one of the card.
    """
    path = folder / TRAINING_CONFIGURATIONS
    if not path.is_file():
        raise DefectgenError(f"{path} is missing, so that novelty cannot be told.")
    check_adapter_files(folder, (TRAINING_CONFIGURATIONS,))
    try:
        groups: Mapping[str, Any] = read_object(path)
        for group, keys in groups.items():
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise DocumentError(str(path), f"{group:.30} is {shown(keys)}, expected a list of keys")
    except DocumentError as error:
        raise DefectgenError(str(error), AGAIN) from error
    return {group: frozenset(keys) for group, keys in groups.items()}
