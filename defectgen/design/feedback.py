"""Pairs of a model's own proposals, one nearer to what was asked for: what it learns most from once it knows the task.

Levels of training structures are asked for, the proposals are judged by label or surrogate, and for each target a
better and a worse one are written down. `defectgen.llm.train.preferences` trains on them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from defectgen import __version__
from defectgen.core import Configuration, Host
from defectgen.core.stored_hosts import host_title, record_hosts
from defectgen.data.record_files import write_records
from defectgen.design.proposers import Ask, Proposer
from defectgen.design.seeds import seed_for
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import parse_json, read_object, require_object
from defectgen.io.files import write_text
from defectgen.io.folders import MANIFEST, claimed, contents
from defectgen.llm.train.design_metric import distance_ev, labels_of, levels_of, structure_of, value_levels
from defectgen.score.protocol import Scorer
from defectgen.tasks.defect.defect_task import BY_DFT, LEVEL_PAIR, VALUES_BY, DefectTask

CHUNK = 64
"""Targets whose proposals are drawn and written down together; an interrupted run goes on after the last chunk."""

FACTOR = 2.0
"""How many times as far from the target as the better proposal the worse one of a pair is at least."""

PROPOSALS = "proposals.jsonl"
"""Beside the pairs: all proposals that they were chosen from."""

Record = dict[str, Any]


@dataclass(frozen=True)
class FeedbackSettings:
    """What decides the pairs besides model, surrogate and records.

    Attributes:
        targets: training structures whose HOMO and LUMO are asked for.
        n: proposals a target.
        temperature: of the proposals; higher than in use, so that there is something to choose from.
        within_ev: a proposal this near is good enough, and none of those is the worse one of a pair; in eV.
        sets: sets that the targets come from.
        seed: of the draw of targets, proposals and pairs.
        diversity_ev: what a proposal counts as farther away, in eV, if it had all of its edits in common with the
            others for its target; the better one of a pair is the one that is nearest by this.
    """

    targets: int
    n: int
    temperature: float
    within_ev: float
    sets: tuple[str, ...]
    seed: int
    diversity_ev: float = 0.0


@dataclass(frozen=True)
class JudgedProposals:
    """Proposals for the levels of one training structure.

    Attributes:
        record: the training record whose levels were asked for.
        distances_ev: canonical key of each distinct proposal to |dHOMO| + |dLUMO|; by label if a
            training record states both levels of it, else by the surrogate. Structures held back are left out.
    """

    record: Record
    distances_ev: dict[str, float]


def choose_targets(training: Sequence[Record], settings: FeedbackSettings) -> list[Record]:
    """Training records that ask for HOMO and LUMO, one a structure, drawn without replacement and sorted by set.

    Raises:
        DefectgenError: there is none.
    """
    distinct = {
        (record["set"], record["id"]): record
        for record in training
        if set(record["values"]) == set(LEVEL_PAIR) and not record["kinds"] and record["set"] in settings.sets
    }
    if not distinct:
        raise DefectgenError("no training record asks for HOMO and LUMO alone.", "Build data with such labels.")
    keys = sorted(distinct)
    count = min(settings.targets, len(keys))
    chosen = np.random.default_rng(settings.seed).choice(len(keys), count, replace=False)
    return [distinct[keys[k]] for k in sorted(chosen.tolist())]


def judge_proposals(
    targets: Sequence[Record],
    propose: Callable[[str], tuple[Proposer, Scorer]],
    training: Sequence[Record],
    held_back: Sequence[Record],
    settings: FeedbackSettings,
    hosts: Mapping[str, Host],
) -> Iterator[list[JudgedProposals]]:
    """Draw and judge proposals for targets, a chunk of one set at a time.

    Args:
        targets: see `choose_targets`.
        propose: gives what proposes and what scores for a set.
        training: records whose labels count.
        held_back: records whose structures are never shown to the model, not even as its own proposals.
        settings: see `FeedbackSettings`.
        hosts: of the records, see `defectgen.data.record_files.record_hosts`.
    """
    labels = labels_of(training)
    hidden = {structure_of(record) for record in held_back}
    for name, chunks in itertools.groupby(_chunks(targets), lambda chunk: str(chunk[0]["set"])):
        proposer, scorer = propose(name)
        for chunk in chunks:
            host = hosts[host_title(chunk[0])]
            asks = [Ask(record["values"], settings.n, seed_for(settings.seed, name, record["id"])) for record in chunk]
            found: list[dict[str, Configuration]] = [{} for _ in chunk]
            for proposal in proposer.propose(host, asks):
                made = proposal.configuration
                if made is not None and (host.name, host.size, made.key) not in hidden:
                    for own in found if proposal.ask is None else [found[proposal.ask]]:
                        own[made.key] = made
            distinct = {key: configuration for made in found for key, configuration in made.items()}
            values = dict(zip(distinct, value_levels(list(distinct.values()), labels, scorer), strict=True))
            yield [
                JudgedProposals(
                    record,
                    {key: distance_ev(value, levels_of(record)) for key in made if (value := values[key]) is not None},
                )
                for record, made in zip(chunk, found, strict=True)
            ]


def choose_pair(judged: JudgedProposals, settings: FeedbackSettings) -> tuple[str, str] | None:
    """A better and a worse proposal; None where all are good enough, or none is clearly better.

    The better one is drawn from those within reach of the target or, where there is none, is the nearest. With a
    weight of diversity it is the one of these that is least like the others, as far as distances allow.
    """
    if not judged.distances_ev:
        return None
    rng = np.random.default_rng(seed_for(settings.seed, "pair", judged.record["set"], judged.record["id"]))
    near = [key for key, value in judged.distances_ev.items() if value <= settings.within_ev]
    if settings.diversity_ev:
        alike = likeness(list(judged.distances_ev))
        cost = {key: value + settings.diversity_ev * alike[key] for key, value in judged.distances_ev.items()}
        better = min(near or cost, key=lambda key: cost[key])
    else:
        better = str(rng.choice(near)) if near else min(judged.distances_ev, key=lambda key: judged.distances_ev[key])
    limit = max(settings.within_ev, FACTOR * judged.distances_ev[better])
    far = [key for key, value in judged.distances_ev.items() if value > limit]
    return (better, str(rng.choice(far))) if far else None


def likeness(keys: Sequence[str]) -> dict[str, float]:
    """For each canonical key the mean share of edits that it has in common with the others, 0 to 1."""
    edits = {key: frozenset(key.split("+")) for key in keys}
    shares = {
        key: [len(own & e) / len(own | e) for other, e in edits.items() if other != key] for key, own in edits.items()
    }
    return {key: float(np.mean(found)) if found else 0.0 for key, found in shares.items()}


def pair_record(judged: JudgedProposals, task: DefectTask, settings: FeedbackSettings, host: Host) -> Record | None:
    """The instruction record of a target's pair: that of the better proposal, with the worse one in ``rejected``."""
    pair = choose_pair(judged, settings)
    if pair is None:
        return None
    record = judged.record
    better, worse = (Configuration.from_key(host, key) for key in pair)
    return {
        **{name: record[name] for name in ("id", "host", "supercell", "set", "split", "values", "kinds", "writing")},
        VALUES_BY: record.get(VALUES_BY, BY_DFT),
        "configuration": better.key,
        "n_defects": better.n_defects,
        "distance_ev": round(judged.distances_ev[better.key], 6),
        "rejected_configuration": worse.key,
        "rejected_distance_ev": round(judged.distances_ev[worse.key], 6),
        "prompt": record["prompt"],
        "completion": task.completion(better),
        "rejected": task.completion(worse),
    }


def write_feedback(
    records: Path,
    output: Path,
    training: Sequence[Record],
    held_back: Sequence[Record],
    settings: FeedbackSettings,
    sources: Mapping[str, str],
    task: DefectTask,
    propose: Callable[[str], tuple[Proposer, Scorer]],
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a folder of pairs, with the validation and test records beside them, for `finetune`.

    All proposals are kept in ``proposals.jsonl``; a run that was interrupted goes on after those that are there.

    Args:
        records: folder of `build-data`.
        output: folder of the pairs.
        training: its training records.
        held_back: its validation and test records.
        settings: see `FeedbackSettings`.
        sources: what proposed and what judged, as checksums or names.
        task: of the model.
        propose: see `judge_proposals`.
        overwrite: replace pairs made with other settings.
        progress: called with the number of targets done.

    Returns:
        The manifest, with ``within_share`` (of all proposals) and ``pairs``.

    Raises:
        UsageError: the folder holds other pairs or files.
        DefectgenError: no fitting training records, or another run has the folder.
    """
    with claimed(output):
        manifest = read_object(records / MANIFEST)
        hosts = record_hosts(manifest)
        header = {
            "settings": manifest["settings"]
            | {"feedback": {**asdict(settings), "sets": list(settings.sets), **sources}},
            "records_sha256": manifest["data_sha256"],
        }
        targets = choose_targets(training, settings)
        path = output / PROPOSALS
        done = _resume(path, header, output, [len(chunk) for chunk in _chunks(targets)], overwrite=overwrite)
        progress(len(done))
        known = {(judged.record["set"], judged.record["id"]) for judged in done}
        left = [record for record in targets if (record["set"], record["id"]) not in known]
        with path.open("a", encoding="utf-8") as stream:
            for chunk in judge_proposals(left, propose, training, held_back, settings, hosts):
                stream.writelines(json.dumps(asdict(judged)) + "\n" for judged in chunk)
                stream.flush()
                done += chunk
                progress(len(chunk))
        made = (pair_record(judged, task, settings, hosts[host_title(judged.record)]) for judged in done)
        pairs = [record for record in made if record is not None]
        if not pairs:
            raise DefectgenError(
                f"none of {len(done)} targets has a better and a worse proposal.", "Raise --n or --temperature."
            )
        distances = [value for judged in done for value in judged.distances_ev.values()]
        checksum = hashlib.sha256("".join(json.dumps(record) for record in pairs).encode()).hexdigest()
        wanted = {
            "defectgen": __version__,
            "prompt_version": manifest["prompt_version"],
            "settings": header["settings"],
            "data_sha256": checksum,
        }
        about = {
            name: manifest[name] for name in ("hosts", "max_defects", "covered_ev", "structures") if name in manifest
        } | {
            "records_sha256": manifest["data_sha256"],
            "targets": len(done),
            "pairs": len(pairs),
            "proposals": len(distances),
            "within_share": float(np.mean(np.array(distances) <= settings.within_ev)),
        }
        return write_records(
            output,
            wanted,
            lambda part: pairs if part == "train" else [r for r in held_back if r["split"] == part],
            about,
            lambda record: str(record["set"]),
            overwrite=overwrite,
            begun=True,
        )


def _chunks(targets: Sequence[Record]) -> list[list[Record]]:
    """Targets of one set each, drawn and judged together."""
    chunks = []
    for name in sorted({record["set"] for record in targets}):
        wanted = [record for record in targets if record["set"] == name]
        chunks += [wanted[first : first + CHUNK] for first in range(0, len(wanted), CHUNK)]
    return chunks


def _resume(
    path: Path, header: Mapping[str, Any], output: Path, chunks: Sequence[int], *, overwrite: bool
) -> list[JudgedProposals]:
    """What an earlier run judged; begins the file if there is none.

    Of a chunk that was cut off nothing is kept: drawn in another company, proposals differ.

    Raises:
        UsageError: proposals made with other settings, or foreign files.
    """
    if contents(output) and not path.is_file():
        raise UsageError(f"{output} holds other files.", "Choose another folder.")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    if whole and parse_json(whole[0], str(path)) != header:
        if not overwrite:
            raise UsageError(
                f"{output} holds proposals made with other settings.", "Choose another folder or add --overwrite."
            )
        whole = []
    kept = 1 + max((n for n in itertools.accumulate(chunks) if n < len(whole)), default=0)
    whole = whole[:kept]
    if not whole or len(whole) < len(lines):
        write_text(path, "".join(whole or [json.dumps(header) + "\n"]))
    return [_judged(line, path) for line in whole[1:]]


def _judged(line: str, path: Path) -> JudgedProposals:
    """What an earlier run wrote on one line.

    Raises:
        DefectgenError: something else.
    """
    try:
        return JudgedProposals(**require_object(parse_json(line, str(path)), str(path)))
    except TypeError as error:
        raise DefectgenError(f"{path} holds no proposals ({error}).", "Choose another folder.") from error
