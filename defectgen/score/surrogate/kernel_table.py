"""The kernels between decorations by name, and the lengths that they are made of.

A model stores a weight for each kernel of its property, in the order here; a kernel's length is that of a Gaussian
``exp(-d^2 / 2 length^2)`` between two cells, in the unit of what is compared (numbers, shares, spreads).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class EnergyKernel(IntEnum):
    """What two cells may have in common for an energy per defect; all are sums over the defects of both."""

    COUNTS = 0
    """Product of the numbers of defects of each kind."""
    PAIRS = 1
    """Product of the numbers of pairs of each two kinds and distance, near ones counting more."""
    SMOOTH_PAIRS = 2
    """The same, where pairs of similar length are alike."""
    LONG_PAIRS = 3
    """The same with a longer range."""
    COMPOSITION = 4
    """Similar numbers of defects of each kind."""
    SHARES = 5
    """Similar shares of each kind in all defects."""
    NEAR = 6
    """Defects of one kind with similar near neighbours, see `NEAR`."""
    WIDE = 7
    """The same with neighbours up to a longer distance, see `WIDE`."""
    SMOOTH_PAIRS_IN_LIKE_SHARES = 8
    """`SMOOTH_PAIRS` where the shares of kinds are similar, too."""
    NEAR_IN_LIKE_SHARES = 9
    """`NEAR`, likewise."""


class LevelKernel(IntEnum):
    """What two cells may have in common for a level, a gap or a moment; they are compared as wholes."""

    HAS = 0
    """The same kinds of defects are there, in whatever number."""
    COUNTS = 1
    """Nearly equal numbers of defects of each kind."""
    COUNTS_COARSE = 2
    """Similar numbers."""
    LOG_COUNTS = 3
    """Similar logarithms of the numbers."""
    SHARES = 4
    """Similar shares of each kind in all defects."""
    POOLED_FINE = 5
    """Nearly equal pooled features (`Decorations.pooled`)."""
    POOLED = 6
    """Similar pooled features."""
    POOLED_COARSE = 7
    """Roughly similar pooled features."""
    PRESENT_FINE = 8
    """Nearly the same kinds of pairs are present."""
    PRESENT = 9
    """Similar kinds of pairs are present."""
    NUMBER_FINE = 10
    """Nearly equal numbers of pairs."""
    NUMBER = 11
    """Similar numbers of pairs."""
    AROUND = 12
    """Defects of one kind with similar neighbours, see `LEVEL_SURROUNDINGS`."""
    AROUND_SHARP = 13
    """The same with nearly equal ones."""
    POOLED_FINE_HAS = 14
    """Product of `POOLED_FINE` and `HAS`."""
    POOLED_COARSE_HAS = 15
    """Product of `POOLED_COARSE` and `HAS`."""


ENERGY_LENGTHS = {EnergyKernel.COMPOSITION: 6.0, EnergyKernel.SHARES: 1.0}
"""Lengths of the Gaussians: in numbers of defects, and in shares."""

LIKE_SHARES = 0.5
"""Length in shares of what the last two kernels of energies are multiplied by."""

LEVEL_LENGTHS = {
    LevelKernel.HAS: 0.5,
    LevelKernel.COUNTS: 0.7,
    LevelKernel.COUNTS_COARSE: 2.5,
    LevelKernel.LOG_COUNTS: 0.5,
    LevelKernel.SHARES: 0.5,
    LevelKernel.POOLED_FINE: 0.4,
    LevelKernel.POOLED: 1.0,
    LevelKernel.POOLED_COARSE: 3.0,
    LevelKernel.PRESENT_FINE: 0.3,
    LevelKernel.PRESENT: 1.0,
    LevelKernel.NUMBER_FINE: 0.3,
    LevelKernel.NUMBER: 1.0,
}
"""Lengths of the Gaussians: in weighted numbers or shares of defects, else in units of the training rows' spread."""

TIMES_HAS = {
    LevelKernel.POOLED_FINE: LevelKernel.POOLED_FINE_HAS,
    LevelKernel.POOLED_COARSE: LevelKernel.POOLED_COARSE_HAS,
}
"""Kernels that are also there multiplied by `LevelKernel.HAS`."""

POOLED = LevelKernel.POOLED_FINE, LevelKernel.POOLED, LevelKernel.POOLED_COARSE
PRESENT = LevelKernel.PRESENT_FINE, LevelKernel.PRESENT
NUMBER = LevelKernel.NUMBER_FINE, LevelKernel.NUMBER
"""Kernels of one distance, those of pooled features, of pairs that are present, and of their numbers."""

AROUND = slice(LevelKernel.AROUND, LevelKernel.AROUND_SHARP + 1)
LEVEL_POWERS = 1, 5
"""Kernels of surroundings in levels, and the powers of the Gaussian between two defects in each."""


class Surroundings(NamedTuple):
    """How the neighbours of a defect are compared, as `environment_basis` takes it.

    Attributes:
        decay_angstrom: length on which their influence decays.
        smoothing_angstrom: how far apart distances that are alike may be.
        longest_angstrom: distance beyond which there are no neighbours.
        sharpness: factor of the squared distance in the exponent of the Gaussian.
    """

    decay_angstrom: float
    smoothing_angstrom: float
    longest_angstrom: float
    sharpness: float


OTHER_PARITY = 30.0
"""Distance that is added between cells of which one has an odd number of electrons and the other an even one, in the
kernels of pooled features, of pairs that are present, and of their numbers. An odd number leaves a level half filled:
cells with and without it have little to say of each other's band edges. Far beyond every length, so that such cells are
not alike at all; measured in docs/results/surrogate.md."""

NEAR = Surroundings(3.0, 0.0, 4.5, 0.5)
WIDE = Surroundings(4.0, 0.7, 9.0, 0.1)
LEVEL_SURROUNDINGS = Surroundings(3.0, 0.7, 7.0, 0.1)

SHORT_ANGSTROM, LONG_ANGSTROM = 2.0, 5.0
"""Lengths on which the influence of pairs on energies decays."""

SMOOTHING_ANGSTROM = 3.0
"""How far apart the lengths of pairs that are alike in energies may be."""

LEVEL_PAIRS_ANGSTROM, LEVEL_DECAY_ANGSTROM = 8.0, 3.0
"""Longest pair that kernels of levels look at, and length on which the weight of pairs decays."""
