"""Data sets that the package brings along."""
