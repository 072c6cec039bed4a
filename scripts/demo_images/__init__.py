"""The pictures that scripts/make_demo_images.py draws."""
