#!/usr/bin/env python3
"""Says n lines, and then that it is done. The payload is {"n": 1500}; with "pad" each is longer by so many characters."""

import json
import sys

payload = json.load(sys.stdin) or {}
pad = "." * int(payload.get("pad", 0))
for number in range(int(payload.get("n", 1500))):
    print(json.dumps({"type": "log", "level": "info", "message": f"line {number}{pad}"}))
print(json.dumps({"type": "result", "value": "done"}))
