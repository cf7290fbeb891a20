"""LoRA fine-tuning on instruction records."""
