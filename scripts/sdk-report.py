"""Prints what the tests of Langfuse's SDKs left behind as a table: version by capability."""

import json
import pathlib
import sys

files = sorted(pathlib.Path(sys.argv[1]).glob("*.json"))
outcomes = {file.stem: json.loads(file.read_text()) for file in files}
names = list(dict.fromkeys(name for outcome in outcomes.values() for name in outcome))
print("| SDK |", " | ".join(names), "|")
print("|---" * (len(names) + 1) + "|")
for sdk, outcome in outcomes.items():
    print(f"| {sdk} |", " | ".join(outcome.get(name, "–") for name in names), "|")
