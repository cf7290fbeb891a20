"""The design metric of training: constrained proposals for held-out levels, and how far they miss them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.core import Configuration, Host
from defectgen.core.stored_hosts import host_title, record_hosts
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.train.finetune_config import DesignMetricSettings
from defectgen.tasks.defect.defect_task import BY_SURROGATE, LEVEL_PAIR, VALUES_BY, DefectTask
from defectgen.tasks.defect.encodings import ENCODINGS

if TYPE_CHECKING:  # polars and what else scoring needs is loaded with a scorer only
    from defectgen.score.protocol import Scorer

CAP_EV = 1.0
"""The error of a proposal that nothing values, and the largest that counts: random choice misses by 0.6 eV."""
WITHIN_EV = 0.02
Labels = Mapping[tuple[str, str, str], tuple[float, float]]
"""Host, supercell and canonical key to HOMO and LUMO in eV."""


@dataclass(frozen=True)
class DesignMetric:
    """Held-out levels to ask for, and what values the answers.

    Attributes:
        hosts: the host of each target.
        levels_ev: HOMO and LUMO of each target, eV, shape (targets, 2).
        requests: a prompt, grammar and seed for each.
        task: reads completions.
        labels: labels of training and validation records that state both levels.
        scorer: values what has no label; None if nothing does.
    """

    hosts: tuple[Host, ...]
    levels_ev: tuple[tuple[float, float], ...]
    requests: tuple[Request, ...]
    task: DefectTask
    labels: Labels
    scorer: Scorer | None

    @classmethod
    def of(
        cls,
        settings: DesignMetricSettings,
        manifest: Mapping[str, Any],
        training: Sequence[Mapping[str, Any]],
        validation: Sequence[Mapping[str, Any]],
        seed: int,
        scorer: Scorer | None = None,
    ) -> DesignMetric:
        """The metric on targets drawn from the validation records that state HOMO and LUMO.

        Args:
            settings: how many targets and completions, and what values them.
            manifest: of the records.
            training: records trained on.
            validation: records held back; those of the test part are never looked at.
            seed: of the draw and of the completions.
            scorer: in place of the one that `settings` names.

        Raises:
            UsageError: records of another task, fewer such records than targets, or a host that the scorer
                does not know.
            DefectgenError: a surrogate that cannot be loaded, or records that do not say their hosts.
        """
        encoding = manifest["settings"].get("encoding")
        if encoding not in ENCODINGS or not all("configuration" in record for record in validation):
            raise UsageError("the design metric needs records of the defect task.", "Set design.targets=0.")
        both = [record for record in validation if set(LEVEL_PAIR) <= set(record["values"])]
        if len(both) < settings.targets:
            raise UsageError(
                f"{len(both)} validation records state HOMO and LUMO, design.targets is {settings.targets}.",
                f"Set design.targets={len(both)} or build more records.",
            )
        rng = np.random.default_rng(seed)
        chosen = [both[k] for k in sorted(rng.choice(len(both), settings.targets, replace=False))]
        task = DefectTask(encoding, cartesian=bool(manifest["settings"].get("cartesian", False)))
        known = record_hosts(manifest)
        hosts = tuple(known[host_title(record)] for record in chosen)
        levels = tuple(levels_of(record) for record in chosen)
        requests = tuple(
            Request(
                task.prompt(host, dict(zip(LEVEL_PAIR, pair, strict=True))),
                task.grammar(host, manifest["max_defects"][host.name]),
                settings.samples,
                seed + k,
            )
            for k, (host, pair) in enumerate(zip(hosts, levels, strict=True))
        )
        labels = labels_of((*training, *both))
        if scorer is None and settings.scorer == "surrogate":
            scorer = _load_surrogate(settings.surrogate)
        if scorer is not None:  # what it does not know is said before training, not at the first evaluation
            shown = zip(hosts, chosen, strict=True)
            scorer.score([Configuration.from_key(host, record["configuration"]) for host, record in shown])
        return cls(hosts, levels, requests, task, labels, scorer)

    def measure(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Draw the proposals at temperature 0.7 and value them.

        Args:
            model: the causal language model with its adapter in place.
            tokenizer: of the model.

        Returns:
            ``eval_design_error_ev``: mean of |dHOMO| + |dLUMO| over all proposals, each at most `CAP_EV`,
            which is also the error of a proposal that neither a label nor the scorer values;
            ``eval_design_within_20mev``: share of all proposals within 20 meV;
            ``eval_design_valued``: share of all proposals that have a value.
        """
        was_training = model.training
        drawn: list[tuple[int, Configuration]] = []
        for completion in TransformersGenerator(model, tokenizer).generate(self.requests, Sampling()):
            host = self.hosts[completion.request]
            drawn.append((completion.request, self.task.parse(host, completion.text).canonical()))
        model.train(was_training)
        errors = np.array(self._errors(drawn))
        return {
            "eval_design_error_ev": float(np.minimum(errors, CAP_EV).mean()),
            "eval_design_within_20mev": float((errors <= WITHIN_EV).mean()),
            "eval_design_valued": float(np.isfinite(errors).mean()),
        }

    def _errors(self, drawn: Sequence[tuple[int, Configuration]]) -> list[float]:
        """|dHOMO| + |dLUMO| of each proposal in eV, infinite where nothing values it."""
        found = value_levels([configuration for _, configuration in drawn], self.labels, self.scorer)
        return [
            float("inf") if pair is None else distance_ev(pair, self.levels_ev[target])
            for (target, _), pair in zip(drawn, found, strict=True)
        ]


def labels_of(records: Iterable[Mapping[str, Any]]) -> Labels:
    """The levels of the structures whose records state both, as DFT has them."""
    return {
        structure_of(r): levels_of(r)
        for r in records
        if set(LEVEL_PAIR) <= set(r["values"]) and r.get(VALUES_BY) != BY_SURROGATE
    }


def structure_of(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """Host, supercell and canonical key of what a record shows."""
    return record["host"], record["supercell"], record["configuration"]


def levels_of(record: Mapping[str, Any]) -> tuple[float, float]:
    """HOMO and LUMO that a record states, in eV."""
    homo, lumo = (float(record["values"][column]) for column in LEVEL_PAIR)
    return homo, lumo


def value_levels(
    configurations: Sequence[Configuration], labels: Labels, scorer: Scorer | None
) -> list[tuple[float, float] | None]:
    """HOMO and LUMO of canonical configurations in eV, by label or else by the scorer; None where neither has them."""
    found = [labels.get((c.host.name, c.host.size, c.key)) for c in configurations]
    unknown = [k for k, pair in enumerate(found) if pair is None]
    if scorer is not None and unknown:
        frame = scorer.score([configurations[k] for k in unknown])
        for k, homo, lumo in zip(unknown, *(frame[column] for column in LEVEL_PAIR), strict=True):
            found[k] = None if homo is None or lumo is None else (float(homo), float(lumo))
    return found


def distance_ev(found: tuple[float, float], wanted: tuple[float, float]) -> float:
    """|dHOMO| + |dLUMO| in eV."""
    return float(np.abs(np.subtract(found, wanted)).sum())


def _load_surrogate(folder: str | None) -> Scorer:
    try:
        from defectgen.score.surrogate import Surrogate

        return Surrogate.load(None if folder is None else Path(folder))
    except ImportError as error:
        raise DefectgenError(
            f"design.scorer surrogate needs catboost ({error}).", "Install it, or set design.scorer=labels."
        ) from error
