"""Defect structures of 2D materials on demand: from wanted levels to ranked, DFT-ready cells.

    import defectgen as dg

    run = dg.design("MoS2", homo=0.05, lumo=1.15, n=16)
    run.write("designs/first")

Names are imported when they are first used, so that this import takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from defectgen.core import Configuration as Configuration
    from defectgen.core import Host as Host
    from defectgen.core import NotADecorationError as NotADecorationError
    from defectgen.core import Rule as Rule
    from defectgen.design.candidates import Candidate as Candidate
    from defectgen.design.candidates import DesignRun as DesignRun
    from defectgen.design.candidates import Target as Target
    from defectgen.design.run import design as design
    from defectgen.dft.inputs import dft_inputs as dft_inputs
    from defectgen.dft.results import dft_results as dft_results
    from defectgen.errors import DefectgenError as DefectgenError
    from defectgen.errors import UsageError as UsageError
    from defectgen.library import enumerate_configurations as enumerate
    from defectgen.library import host as host
    from defectgen.library import hosts as hosts
    from defectgen.library import load_2dmd as load_2dmd
    from defectgen.library import read_host as read_host
    from defectgen.library import read_structure as read_structure
    from defectgen.library import score as score
    from defectgen.library import train_surrogate as train_surrogate

__version__ = "0.1.0"

__all__ = [
    "Candidate",
    "Configuration",
    "DefectgenError",
    "DesignRun",
    "Host",
    "NotADecorationError",
    "Rule",
    "Target",
    "UsageError",
    "__version__",
    "design",
    "dft_inputs",
    "dft_results",
    "enumerate",
    "host",
    "hosts",
    "load_2dmd",
    "read_host",
    "read_structure",
    "score",
    "train_surrogate",
]

_HOME = {
    "Candidate": "defectgen.design.candidates",
    "Configuration": "defectgen.core",
    "DefectgenError": "defectgen.errors",
    "DesignRun": "defectgen.design.candidates",
    "Host": "defectgen.core",
    "NotADecorationError": "defectgen.core",
    "Rule": "defectgen.core",
    "Target": "defectgen.design.candidates",
    "UsageError": "defectgen.errors",
    "design": "",
    "dft_inputs": "defectgen.dft.inputs",
    "dft_results": "defectgen.dft.results",
    "enumerate": "defectgen.library:enumerate_configurations",
    "host": "defectgen.library",
    "hosts": "defectgen.library",
    "load_2dmd": "defectgen.library",
    "read_host": "defectgen.library",
    "read_structure": "defectgen.library",
    "score": "",
    "train_surrogate": "defectgen.library",
}
"""Where each public name lives; an empty text stands for the package of that name, which can be called."""


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    found: object = (
        import_module(f"{__name__}.{name}") if not module else getattr(import_module(module), attribute or name)
    )
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
