"""The pictures that scripts/demo_images/__main__.py draws."""
