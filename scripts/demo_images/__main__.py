"""Draws the demo photos: python -m scripts.demo_images OUT [--count 200] [--seed 7]."""

import sys

from scripts.demo_images.photos import main

if __name__ == "__main__":
    sys.exit(main())
