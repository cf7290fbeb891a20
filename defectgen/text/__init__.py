"""Text of the defect task: numbers, prompts, encodings and the grammars that decoding obeys."""
