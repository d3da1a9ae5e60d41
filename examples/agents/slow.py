#!/usr/bin/env python3
"""Says "tick" n times, ms apart, and then that it is done. The payload is {"n": 5, "ms": 100}."""

import json
import sys
import time

payload = json.load(sys.stdin) or {}
for number in range(int(payload.get("n", 5))):
    print(json.dumps({"type": "log", "level": "info", "message": f"tick {number}"}), flush=True)
    time.sleep(int(payload.get("ms", 100)) / 1000)
print(json.dumps({"type": "result", "value": "done"}))
