"""The model card of an adapter for people: what it does, on what it was trained and how, with the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from defectgen.core.hosts import common_name
from defectgen.core.properties import BY_COLUMN, COLUMNS
from defectgen.io.hub_card import TAGS, base_fields, hub_header

if TYPE_CHECKING:
    from defectgen.llm.adapter import AdapterCard


def adapter_markdown(card: AdapterCard) -> str:
    """The model card in Markdown."""
    if card.is_bulk:
        return _bulk_markdown(card)
    config, settings = card.training["config"], card.data["settings"]
    structures = card.data["structures"]
    lora = config["lora"]
    sets = sorted({key.split("/", 1)[1] for key in card.data["records"]})
    split = settings.get("split", "symmetry-class")
    more = [(name, settings.get(name)) for name in ("enlarge", "around", "repeat")]
    added = "".join(f" --{name} {n}" for name, n in more if n and (name, n) != ("repeat", 1))
    build = (
        f"defectgen build-data --sets {','.join(sets)} --encoding {card.encoding} --copies {settings['copies']}"
        f" {'--rotations' if settings['rotations'] else '--canonical'}{added}"
        f"{' --cartesian' * settings.get('cartesian', False)} --split {split} --seed {settings['seed']} -o RECORDS"
    )
    shown = "random symmetry images" if settings["rotations"] else "canonical form"
    titles = {host: common_name(host) for host in card.hosts}
    titles |= {host.name: common_name(host) for host in card.core_hosts}
    lines = [
        *_header(card),
        f"# LoRA adapter for defects in {', '.join(map(titles.__getitem__, card.hosts))}",
        "",
        f"Proposes point defects for wanted properties; works on {card.base_model} and under its grammar only.",
        "",
        "| | |",
        "|---|---|",
        f"| defectgen | {card.training['defectgen']}, prompt version {card.prompt_version} |",
        f"| base model | {card.base_model} |",
        f"| adapter | LoRA rank {lora['rank']}, alpha {lora['alpha']}, {lora['targets']}{_shrunk(card)} |",
        f"| encoding | {card.encoding}, {shown} |",
        f"| data | {', '.join(sets)} of 2DMD (CC BY 4.0) |",
        f"| split | {split}, seed {settings['seed']}: {structures['train']} structures for training, "
        f"{structures['validation']} for validation, {structures['test']} for test |",
        *_unlabelled(card),
        f"| records | {_records(card)}; sha256 {card.data['data_sha256'][:12]} |",
        f"| training | {card.training['steps']} steps of {config['batch_size'] * config['accumulation']} records, "
        f"learning rate {config['learning_rate']} along a cosine to 0, seed {config['seed']} |",
        f"| commands | `{build}`, `{card.training.get('command') or 'not recorded'}` |",
        f"| validation loss | {_validation(card)} |",
        *_before(card),
        "",
        "Ranges of the training structures (eV; levels relative to the valence band maximum of the pristine host):",
        "",
        "| host | most defects | " + " | ".join(map(_title, COLUMNS)) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for host in card.hosts:
        ranges = [card.covered_ev[host].get(column) for column in COLUMNS]
        cells = [f"{r[0]:.3f} to {r[1]:.3f}" if r else "none" for r in ranges]
        lines.append(f"| {titles[host]} | {card.max_defects[host]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _title(column: str) -> str:
    """Title of a property, with its unit where that is not eV."""
    item = BY_COLUMN[column]
    return item.title if item.unit == "eV" else f"{item.title}, {item.unit}"


def _header(card: AdapterCard, *tags: str) -> list[str]:
    """What model hubs read; the licence is that of the base model where it is known."""
    return hub_header(
        **base_fields(card.base_model),
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", *(tags or TAGS)],
    )


def _validation(card: AdapterCard) -> str:
    """Loss of the weights that were kept, and of which step they are where it is not the last."""
    losses, steps = card.training["validation_losses"], card.training["steps"]
    if not losses:
        return "not measured"
    kept = card.training.get("best_step", steps)
    loss = dict(map(tuple, losses)).get(kept, losses[-1][1])
    return f"{loss:.4f} nats a token" + (f", after step {kept}, which was kept" if kept != steps else "")


def _before(card: AdapterCard) -> list[str]:
    """Rows of the runs that this one went on from, the latest first; their data and hosts are in it too."""
    rows, earlier = [], card.training.get("initial_adapter")
    while earlier:
        rows.append(f"| before | {earlier['steps']} steps: `{earlier.get('command') or 'not recorded'}` |")
        earlier = earlier.get("initial_adapter")
    return rows


def _records(card: AdapterCard) -> str:
    """What one training record is."""
    settings = card.data["settings"]
    if "feedback" not in settings:
        return f"{settings['copies']} for each training structure"
    asked = settings["feedback"]
    pairs = sum(count for key, count in card.data["records"].items() if key.startswith("train/"))
    return (
        f"{pairs} pairs of a better and a worse proposal, out of {asked['n']} at temperature "
        f"{asked['temperature']} for HOMO and LUMO of each of {asked['targets']} training structures, "
        "judged by label or surrogate"
    )


def _unlabelled(card: AdapterCard) -> list[str]:
    """A row for structures that were added without labels."""
    settings = card.data["settings"]
    words = {"enlarge": "random ones", "around": "around what searches found"}
    added = " and ".join(f"{settings[name]} {text}" for name, text in words.items() if settings.get(name))
    if not added:
        return []
    who = f"surrogate {settings['surrogate'][:12]}"
    return [f"| of those for training | {added} a high-density set, valued by {who} |"]


def _shrunk(card: AdapterCard) -> str:
    note = card.training.get("shrunk")
    return f"; then cut to rank {note['rank']}, {note['mean_kept']:.1%} of the squared norm kept" if note else ""


def _bulk_markdown(card: AdapterCard) -> str:
    config, settings, lora = card.training["config"], card.data["settings"], card.training["config"]["lora"]
    structures = card.data["structures"]
    build = f"defectgen build-data --task bulk --copies {settings['copies']} --max-atoms {settings['max_atoms']}"
    prompts = settings.get("prompts", "defectgen")
    build += f" --prompts {prompts}" if prompts != "defectgen" else ""
    build += "".join(f" --{name}" for name in ("permute", "absolute") if settings.get(name))
    parts = "the published ones" if settings["split"] == "published" else f"by formula, seed {settings['seed']}"
    lines = [
        *_header(card, "crystals"),
        "# LoRA adapter for bulk crystals",
        "",
        f"Writes crystals and fills in masked elements; works on {card.base_model}.",
        "",
        "| | |",
        "|---|---|",
        f"| defectgen | {card.training['defectgen']}, prompts {prompts}, version {card.prompt_version} |",
        f"| base model | {card.base_model} |",
        f"| adapter | LoRA rank {lora['rank']}, alpha {lora['alpha']}, {lora['targets']} |",
        f"| parts | {parts}: {structures['train']} crystals for training, {structures['validation']} for "
        f"validation, {structures['test']} for test |",
        f"| records | {settings['copies']} for each training crystal; sha256 {card.data['data_sha256'][:12]} |",
        f"| training | {card.training['steps']} steps of {config['batch_size'] * config['accumulation']} records, "
        f"learning rate {config['learning_rate']} along a cosine to 0, seed {config['seed']} |",
        f"| commands | `{build} --split {settings['split']} --seed {settings['seed']} --data DATA -o RECORDS`, "
        f"`{card.training.get('command') or 'not recorded'}` |",
        f"| validation loss | {_validation(card)} |",
        *_before(card),
        f"| largest cell | {card.data['max_atoms']} atoms |",
        f"| elements | {len(card.data['elements'])}: {' '.join(card.data['elements'])} |",
        "",
        "Ranges of the training crystals:",
        "",
        "| label | least | largest |",
        "|---|---|---|",
        *(f"| {name} | {low:.3f} | {high:.3f} |" for name, (low, high) in card.data["covered"].items()),
    ]
    return "\n".join(lines) + "\n"
