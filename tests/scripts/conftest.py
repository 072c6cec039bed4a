import sys
from pathlib import Path

# The scripts are no package: they run with their own folder on the path, and so do their tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
