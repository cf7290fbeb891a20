"""The YAML header by which model hubs find a model card: licence, base model, tags, figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

TAGS = ("materials-science", "point-defects", "2d-materials", "dft")
"""What every model of point defects is filed under."""

HUB_NAMES = {"smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
"""Name on the model hub, and licence, of base models that are fetched under another name."""


def hub_header(**fields: Any) -> list[str]:
    """Lines of the header, between two lines of three dashes; fields that are None or empty are left out.

    Args:
        fields: as the hub names them: ``license``, ``library_name``, ``base_model``, ``tags``, ``model-index``.
    """
    given = {name.replace("__", "-"): value for name, value in fields.items() if value}
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=10_000)
    return ["---", *text.splitlines(), "---", ""]


def model_index(name: str, results: Sequence[tuple[str, str, str, float]]) -> list[dict[str, Any]]:
    """Figures as the hub takes them, a result a data set.

    Args:
        name: of the model.
        results: (data set, its split, metric with unit, value).
    """
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for dataset, split, metric, value in results:
        grouped.setdefault((dataset, split), []).append({"type": "mae", "name": metric, "value": round(value, 4)})
    return [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": "tabular-regression"},
                    "dataset": {"name": dataset, "type": "2dmd", "split": split},
                    "metrics": metrics,
                }
                for (dataset, split), metrics in grouped.items()
            ],
        }
    ]


def base_fields(base_model: str) -> dict[str, str]:
    """Name on the hub and licence of a base model, as far as they are known; nothing for a folder."""
    if base_model in HUB_NAMES:
        name, licence = HUB_NAMES[base_model]
        return {"license": licence, "base_model": name}
    is_name = base_model.count("/") == 1 and base_model[0] not in "/.~"
    return {"base_model": base_model} if is_name else {}
