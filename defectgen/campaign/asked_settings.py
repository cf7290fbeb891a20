"""What a campaign computes with, beside what results say that they were computed with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from defectgen.campaign.folder import CONFIG, Campaign
from defectgen.dft.layer_settings import LayerSettings
from defectgen.dft.result import Fingerprint
from defectgen.dft.settings import DftSettings, k_mesh

ROUNDED_EV = 0.06
"""Codes write a cutoff with rounding up to this."""

OWN_TAGS = ("GGA", "METAGGA", "LHFCALC", "IVDW", "LUSE_VDW", "LDAU")
"""Tags of INCAR with which the functional is no longer what the settings name."""


def _gpaw(settings: DftSettings) -> Fingerprint:
    own = settings.gpaw
    lcao = own.mode == "lcao"
    return Fingerprint(
        "gpaw",
        settings.functional,
        None if lcao else settings.cutoff_ev,
        f"lcao {own.basis} h={own.grid_spacing_angstrom:g}" if lcao else "",
        tuple(sorted(own.setups.items())),
        smearing="fermi-dirac",
        width_ev=settings.smearing_ev,
    )


def _vasp(settings: DftSettings) -> Fingerprint:
    tags = {key.upper(): value for key, value in settings.vasp.incar.items()}
    smeared = not {"ISMEAR", "SIGMA"} & set(tags)
    return Fingerprint(
        "vasp",
        "" if set(OWN_TAGS) & set(tags) else settings.functional,
        float(tags.get("ENCUT", settings.cutoff_ev)),
        setups=() if settings.vasp.base else tuple(sorted(settings.vasp.potcar.items())),
        smearing="gaussian" if smeared else "",
        width_ev=settings.smearing_ev if smeared else None,
    )


def _espresso(settings: DftSettings) -> Fingerprint:
    return Fingerprint(
        "qe", settings.functional, settings.cutoff_ev, smearing="gaussian", width_ev=settings.smearing_ev
    )


ASKED: dict[str, Callable[[DftSettings], Fingerprint]] = {"gpaw": _gpaw, "vasp": _vasp, "qe": _espresso}


def other_than_asked(campaign: Campaign, found: Iterable[LayerSettings]) -> str:
    """How results differ from what the campaign computes with, in one clause; empty if they do not, or it is not known.

    What a file does not say, or the code decides by itself (pseudopotentials), is not compared.

    Args:
        campaign: whose settings count.
        found: those of results by its code.
    """
    asked = asked_settings(campaign)
    return "" if asked is None else next((why for item in found if (why := _differs(item, asked))), "")


def asked_settings(campaign: Campaign) -> LayerSettings | None:
    """What the campaign's settings come to in its cell; None for a code of which it is not known."""
    config = campaign.config
    if config.engine not in ASKED:
        return None
    fingerprint = ASKED[config.engine](config.settings)
    if config.engine == "vasp" and "KSPACING" in {key.upper() for key in config.settings.vasp.incar}:
        return LayerSettings(fingerprint)
    lattice = campaign.host.supercell_lattice
    mesh = k_mesh(lattice, config.settings.kpoint_length_angstrom, (True, True, False))
    lengths = np.linalg.norm(lattice, axis=1)
    return LayerSettings(fingerprint, min(float(n * length) for n, length in zip(mesh[:2], lengths[:2], strict=True)))


def _differs(item: LayerSettings, asked: LayerSettings) -> str:
    """What keeps a result apart from what is asked for, by all that both say."""
    mine, wanted = item.fingerprint, asked.fingerprint
    cutoff, basis = mine.cutoff_ev, mine.basis
    if cutoff is None and not basis:
        cutoff, basis = wanted.cutoff_ev, wanted.basis
    elif cutoff is not None and wanted.cutoff_ev is not None:
        basis = wanted.basis  # of plane waves: the density's cutoff, which hangs on the pseudopotentials
        cutoff = wanted.cutoff_ev if abs(cutoff - wanted.cutoff_ev) < ROUNDED_EV else cutoff
    functional = mine.functional if mine.functional and wanted.functional else wanted.functional
    known = replace(mine, functional=functional, cutoff_ev=cutoff, basis=basis)
    return replace(item, fingerprint=known).differs(asked)


def note_on_asked(campaign: Campaign, found: Iterable[LayerSettings]) -> str:
    """What to know of results by other settings than those of the campaign, in one line; empty if there are none."""
    why = other_than_asked(campaign, found)
    if not why:
        return ""
    return (
        f"the results are by other settings than {CONFIG}: {why}; `campaign run` computes by the latter and refuses "
        "until both agree: make a campaign by the settings of the results (campaign new --settings FILE), or compute "
        "all elsewhere"
    )
