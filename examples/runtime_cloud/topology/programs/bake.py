#!/usr/bin/env python3
"""Bakes as many trays as it is told to, and says so of each. The parameters are {"trays": 3}."""

import json
import sys
import time

trays = json.load(sys.stdin)["trays"]
for tray in range(1, trays + 1):
    time.sleep(0.2)
    print(f"tray {tray} of {trays} is done", flush=True)
print(json.dumps({"type": "result", "value": {"baked": trays}}), flush=True)
