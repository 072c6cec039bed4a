"""Every sentence of the page, one module for each language."""
