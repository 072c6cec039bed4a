"""The HTML page: cards, charts, matrix, sections, texts."""
