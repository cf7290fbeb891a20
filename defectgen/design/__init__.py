"""Design of defect structures: from wanted levels to ranked candidates. Called, it is `defectgen.design.run.design`."""

from defectgen.callable_package import make_callable

make_callable(__name__, "defectgen.design.run", "design")
