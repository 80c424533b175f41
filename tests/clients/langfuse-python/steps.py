"""Runs the steps of a capability script: each is named after what it shows; all run, whatever fails."""

import json
import sys
import time
import traceback

STEPS = []


def step(function):
    STEPS.append(function)
    return function


def eventually(read, seconds=10):
    """What SDKs send arrives in its own time; a read that fails is tried again."""
    end = time.monotonic() + seconds
    while True:
        try:
            return read()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def run():
    outcome = {}
    for function in STEPS:
        try:
            function()
            outcome[function.__name__] = "ok"
        except Exception:
            traceback.print_exc()
            outcome[function.__name__] = "failed"
    print(json.dumps(outcome))
    sys.exit(0 if set(outcome.values()) == {"ok"} else 1)
