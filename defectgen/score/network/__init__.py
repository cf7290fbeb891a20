"""One network over defects for all hosts and densities: geometry, model, training, ensembles."""
