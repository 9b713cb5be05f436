"""What `bench/compare` is made of: brokers, workloads, tables, and the plot."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WIGWAG = pathlib.Path(os.environ.get("WIGWAG_BINARY", TARGET / "release" / "wigwag"))
# What is installed for comparisons, and what they leave.
PLACE = TARGET / "compare"
SERVER_CORE, GENERATOR_CORE = "0", "1"
