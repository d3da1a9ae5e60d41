#!/usr/bin/env python3
"""Says a tool's result of 400 KiB and a line of 300 KiB, which are kept in part."""

import json

print(json.dumps({"type": "tool_call", "toolName": "t", "toolCallId": "1", "isError": False, "result": "y" * 400 * 1024,
                  "durationMs": 1}))
print("x" * 300 * 1024)
