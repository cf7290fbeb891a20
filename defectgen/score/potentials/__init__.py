"""Interatomic potentials: energies, forces, relaxation."""
