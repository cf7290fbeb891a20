"""Language models: base weights, LoRA training, adapters and constrained generation."""
