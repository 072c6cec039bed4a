"""Findings: label issues, odd images, duplicates, the gallery."""
