"""The command line of defectgen."""
