#!/usr/bin/env python3
"""Fails, and says how."""

import json
import sys

print(json.dumps({"type": "error", "name": "TypeError", "message": "boom"}))
sys.exit(1)
