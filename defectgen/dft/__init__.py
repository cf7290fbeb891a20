"""DFT: inputs of VASP, GPAW and Quantum ESPRESSO, engines that run them, and their results."""
