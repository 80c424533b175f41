"""Sends traces while the server is killed and started again; nothing may be lost. Prints how many were sent.

All majors: 2 sends batches, 3 to 5 export OTLP. Their queues and retries are what people rely on.
"""

import os
import sys
import time

from importlib.metadata import version

from langfuse import Langfuse

MAJOR = int(version("langfuse").split(".")[0])
COUNT = int(sys.argv[1])
# As long as a restart takes.
os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", "30")

if MAJOR == 2:
    langfuse = Langfuse(max_retries=10, timeout=30, flush_at=5, flush_interval=0.2)
else:
    langfuse = Langfuse(timeout=30, flush_at=5, flush_interval=0.2)
for number in range(COUNT):
    if MAJOR == 2:
        langfuse.trace(id=f"restart-{number}", name="restarted").span(name="work").end()
    else:
        with langfuse.start_as_current_observation(name="restarted", as_type="span"):
            pass
    time.sleep(0.03)
langfuse.flush()
print(COUNT)
