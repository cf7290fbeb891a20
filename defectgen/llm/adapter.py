"""A trained adapter: LoRA weights, and beside them everything that sampling must know of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from defectgen.core import Host
from defectgen.core.properties import COLUMNS
from defectgen.core.stored_hosts import read_hosts
from defectgen.errors import DefectgenError
from defectgen.io.folders import write_folder
from defectgen.tasks.bulk.crystal_text import BULK_PROMPT_VERSION
from defectgen.tasks.defect.encodings import ENCODINGS

BULK = "bulk"
"""Encoding of the records of bulk crystals; the others are of defects in hosts."""

METADATA = "defectgen.json"
WEIGHTS = "adapter_model.safetensors"
LORA_CONFIG = "adapter_config.json"
MODEL_CARD = "README.md"
TRAINING_CONFIGURATIONS = "training_configurations.json"
FILES = (WEIGHTS, LORA_CONFIG, MODEL_CARD, TRAINING_CONFIGURATIONS)
"""Beside the card."""


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
        return replace(self, hosts=hosts, max_defects=most, covered_ev=covered, host_records=records)

    @property
    def core_hosts(self) -> tuple[Host, ...]:
        """The hosts of `host_records`.

        Raises:
            DefectgenError: one of them is damaged.
        """
        return tuple(read_hosts(self.host_records).values())

    def write(self, folder: Path) -> None:
        """Write the card for programs, and the model card for people."""
        (folder / MODEL_CARD).write_text(self.markdown(), encoding="utf-8")
        (folder / METADATA).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def markdown(self) -> str:
        """The model card in Markdown."""
        if self.encoding == BULK:
            return self._bulk_markdown()
        config, settings = self.training["config"], self.data["settings"]
        structures = self.data["structures"]
        losses = self.training["validation_losses"]
        lora = config["lora"]
        sets = sorted({key.split("/", 1)[1] for key in self.data["records"]})
        split = settings.get("split", "symmetry-class")
        enlarge = settings.get("enlarge")
        build = (
            f"defectgen build-data --sets {','.join(sets)} --encoding {self.encoding} --copies {settings['copies']}"
            f" {'--rotations' if settings['rotations'] else '--canonical'}{f' --enlarge {enlarge}' if enlarge else ''}"
            f"{' --cartesian' * settings.get('cartesian', False)} --split {split} --seed {settings['seed']} -o RECORDS"
        )
        shown = "random symmetry images" if settings["rotations"] else "canonical form"
        lines = [
            f"# LoRA adapter for defects in {', '.join(self.hosts)}",
            "",
            f"Proposes point defects for wanted properties; works on {self.base_model} and under its grammar only.",
            "",
            "| | |",
            "|---|---|",
            f"| defectgen | {self.training['defectgen']}, prompt version {self.prompt_version} |",
            f"| base model | {self.base_model} |",
            f"| adapter | LoRA rank {lora['rank']}, alpha {lora['alpha']}, {lora['targets']}{self._shrunk} |",
            f"| encoding | {self.encoding}, {shown} |",
            f"| data | {', '.join(sets)} of 2DMD (CC BY 4.0) |",
            f"| split | {split}, seed {settings['seed']}: {structures['train']} structures for training, "
            f"{structures['validation']} for validation, {structures['test']} for test |",
            *self._unlabelled,
            f"| records | {self._records}; sha256 {self.data['data_sha256'][:12]} |",
            f"| training | {self.training['steps']} steps of {config['batch_size'] * config['accumulation']} records, "
            f"learning rate {config['learning_rate']} along a cosine to 0, seed {config['seed']} |",
            f"| commands | `{build}`, `{self.training.get('command') or 'not recorded'}` |",
            f"| validation loss | {f'{losses[-1][1]:.4f} nats a token' if losses else 'not measured'} |",
            *self._before,
            "",
            "Ranges of the training structures (eV; levels relative to the valence band maximum of the pristine host):",
            "",
            "| host | most defects | " + " | ".join(COLUMNS) + " |",
            "|---|---|" + "---|" * len(COLUMNS),
        ]
        for host in self.hosts:
            ranges = [self.covered_ev[host].get(column) for column in COLUMNS]
            cells = [f"{r[0]:.3f} to {r[1]:.3f}" if r else "none" for r in ranges]
            lines.append(f"| {host} | {self.max_defects[host]} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    @property
    def _before(self) -> list[str]:
        """Rows of the runs that this one went on from, the latest first; their data and hosts are in it too."""
        rows, earlier = [], self.training.get("initial_adapter")
        while earlier:
            rows.append(f"| before | {earlier['steps']} steps: `{earlier.get('command') or 'not recorded'}` |")
            earlier = earlier.get("initial_adapter")
        return rows

    @property
    def _records(self) -> str:
        """What one training record is."""
        settings = self.data["settings"]
        if "feedback" not in settings:
            return f"{settings['copies']} for each training structure"
        asked = settings["feedback"]
        pairs = sum(count for key, count in self.data["records"].items() if key.startswith("train/"))
        return (
            f"{pairs} pairs of a better and a worse proposal, out of {asked['n']} at temperature "
            f"{asked['temperature']} for HOMO and LUMO of each of {asked['targets']} training structures, "
            "judged by label or surrogate"
        )

    @property
    def _unlabelled(self) -> list[str]:
        """A row for structures that were added without labels."""
        settings = self.data["settings"]
        if not settings.get("enlarge"):
            return []
        who = f"surrogate {settings['surrogate'][:12]}"
        return [f"| of those for training | {settings['enlarge']} random ones a high-density set, valued by {who} |"]

    @property
    def _shrunk(self) -> str:
        note = self.training.get("shrunk")
        return f"; then cut to rank {note['rank']}, {note['mean_kept']:.1%} of the squared norm kept" if note else ""

    def _bulk_markdown(self) -> str:
        config, settings, lora = self.training["config"], self.data["settings"], self.training["config"]["lora"]
        structures, losses = self.data["structures"], self.training["validation_losses"]
        build = f"defectgen build-data --task bulk --copies {settings['copies']} --max-atoms {settings['max_atoms']}"
        parts = "the published ones" if settings["split"] == "published" else f"by formula, seed {settings['seed']}"
        lines = [
            "# LoRA adapter for bulk crystals",
            "",
            f"Writes crystals and fills in masked elements; works on {self.base_model}.",
            "",
            "| | |",
            "|---|---|",
            f"| defectgen | {self.training['defectgen']}, prompt version {self.prompt_version} |",
            f"| base model | {self.base_model} |",
            f"| adapter | LoRA rank {lora['rank']}, alpha {lora['alpha']}, {lora['targets']} |",
            f"| parts | {parts}: {structures['train']} crystals for training, {structures['validation']} for "
            f"validation, {structures['test']} for test |",
            f"| records | {settings['copies']} for each training crystal; sha256 {self.data['data_sha256'][:12]} |",
            f"| training | {self.training['steps']} steps of {config['batch_size'] * config['accumulation']} records, "
            f"learning rate {config['learning_rate']} along a cosine to 0, seed {config['seed']} |",
            f"| commands | `{build} --split {settings['split']} --seed {settings['seed']} --data DATA -o RECORDS`, "
            f"`{self.training.get('command') or 'not recorded'}` |",
            f"| validation loss | {f'{losses[-1][1]:.4f} nats a token' if losses else 'not measured'} |",
            *self._before,
            f"| largest cell | {self.data['max_atoms']} atoms |",
            f"| elements | {len(self.data['elements'])}: {' '.join(self.data['elements'])} |",
            "",
            "Ranges of the training crystals:",
            "",
            "| label | least | largest |",
            "|---|---|---|",
            *(f"| {name} | {low:.3f} | {high:.3f} |" for name, (low, high) in self.data["covered"].items()),
        ]
        return "\n".join(lines) + "\n"


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
        raise DefectgenError(f"{folder} is no trained adapter.", f"Expected a folder with {WEIGHTS} and {METADATA}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        card = AdapterCard(**values | {"hosts": tuple(values["hosts"])})
    except (ValueError, TypeError, KeyError) as error:
        raise DefectgenError(f"{path}: not an adapter card ({error}).") from error
    installed = installed_prompt_version(card.encoding)
    if card.prompt_version != installed:
        raise DefectgenError(
            f"the adapter in {folder} was trained on prompt version {card.prompt_version}, this is {installed}.",
            "Train it again with `defectgen finetune`, or install the version that made it.",
        )
    return card


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
        for name in FILES:
            (new / name).chmod((new / METADATA).stat().st_mode)  # safetensors writes for the owner only

    write_folder(folder, readable, METADATA, unlisted=FILES)


def read_lora(folder: Path) -> tuple[int, float]:
    """Rank and alpha of an adapter; its updates are multiplied by alpha / rank.

    Raises:
        DefectgenError: the file that says so is missing or damaged.
    """
    path = folder / LORA_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return int(config["r"]), float(config["lora_alpha"])
    except OSError as error:
        raise DefectgenError(f"{folder} is no trained adapter.", f"Expected {LORA_CONFIG} in it.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DefectgenError(f"{path} is damaged: no rank and alpha of an adapter.") from error


def training_configurations(folder: Path) -> dict[str, frozenset[str]]:
    """Keys of the structures an adapter was trained on, by group; see `record_identity`."""
    path = folder / TRAINING_CONFIGURATIONS
    if not path.is_file():
        raise DefectgenError(f"{path} is missing, so that novelty cannot be told.")
    return {host: frozenset(keys) for host, keys in json.loads(path.read_text(encoding="utf-8")).items()}
