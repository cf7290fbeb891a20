"""Data sets, their cards, readers, splits and instruction records."""
