"""Pages as a reader meets them: checks in a browser, and the picture of README.md.

    npm install --prefix benchmarks/pages                   # once: a driver of the system's Chromium, and axe
    python benchmarks/page_checks.py check [PAGE.html ...]  # of a new report by default; exit code 1 with findings
    python benchmarks/page_checks.py picture                # docs/report.png
    python benchmarks/page_checks.py site [PART ...]        # of site/, all pages or those with PART in their path

`check` runs axe (https://github.com/dequelabs/axe-core) on each page in light, dark and on a phone, and looks whether
it asks for anything, writes errors or scrolls sideways. In a report of `design` it opens the 3D view, saves a POSCAR,
sorts and filters the table, and reads the names of marks by keyboard and pointer. `site` runs axe on the pages of the
built site (.ci/run-docs) in light, dark and on a phone, and looks for tables that are wider than the text at 1,000 and
390 pixels. Needs node and Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "pages"
DOCS = HERE.parent / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WISH = ("--host", "MoS2", "--homo", "0.05", "--lumo", "1.15", "-n", "16", "--seed", "0")
"""The run of README.md, whose report is checked and shown."""

PICTURE, SIZE = "report.png", (1280, 880)
"""The head of the report, as README.md shows it; width and height in pixels."""


def missing_tools() -> str:
    """What there is to install before pages can be looked at; empty if nothing."""
    if shutil.which("node") is None:
        return "node (apt-get install nodejs)"
    if not any(shutil.which(name) for name in BROWSERS):
        return "Chromium (apt-get install chromium)"
    if not (SCRIPTS / "node_modules" / "axe-core").is_dir():
        return "axe and the driver (npm install --prefix benchmarks/pages)"
    return ""


def check(pages: list[Path]) -> tuple[list[dict[str, Any]], bool]:
    """What was found in each page and look, and whether all is well."""
    done = _node("check.mjs", *pages)
    return json.loads(done.stdout), done.returncode == 0


def check_site(folder: Path, parts: list[str]) -> tuple[dict[str, Any], bool]:
    """What was found in the pages of a built site, and whether all is well."""
    done = _node("site.mjs", folder, *parts)
    if not done.stdout:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout), done.returncode == 0


def report(folder: Path) -> Path:
    """The report of a new run."""
    subprocess.run([*_defectgen(), "design", *WISH, "-o", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder / "report.html"


def picture(docs: Path, work: Path) -> Path:
    """Make the picture of README.md anew."""
    from PIL import Image

    path = docs / PICTURE
    done = _node("picture.mjs", report(work / "run"), path, *SIZE)
    if done.returncode:
        raise SystemExit(done.stderr)
    with Image.open(path) as image:
        image.convert("RGB").save(path, optimize=True)
    return path


def _node(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    browser = next(found for name in BROWSERS if (found := shutil.which(name)))
    command = ["node", str(SCRIPTS / script), browser, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def _defectgen() -> list[str]:
    return [str(Path(sys.executable).with_name("defectgen"))]


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "picture", "site"))
    parser.add_argument("pages", nargs="*", help="pages to check; of a site, parts of their paths")
    options = parser.parse_args()
    if lacking := missing_tools():
        print(f"missing: {lacking}", file=sys.stderr)
        return 2
    if options.what == "site":
        seen, is_well = check_site(HERE.parent / "site", options.pages)
        print(json.dumps(seen, indent=1))
        return 0 if is_well else 1
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.what == "picture":
            path = picture(DOCS, work)
            print(f"{path} {path.stat().st_size / 1000:.0f} kB")
            return 0
        found, is_well = check([Path(page) for page in options.pages] or [report(work / "run")])
    print(json.dumps(found, indent=1))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
