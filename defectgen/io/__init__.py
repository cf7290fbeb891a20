"""Structures, hosts and crystals from files and to files."""
