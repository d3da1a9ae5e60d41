#!/usr/bin/env python3
"""Fails, and says how. What it says is for those who may read runs, and not for whoever may start one."""

import json
import sys

print(json.dumps({"type": "error", "name": "TypeError", "message": "the secret of the house"}))
sys.exit(1)
