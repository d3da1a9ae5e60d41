#!/usr/bin/env python3
"""Says a line of 300 KiB and a tool's result of 400 KiB, which are kept in part."""

import json

print("x" * 300 * 1024)
print(json.dumps({"type": "tool_call", "toolName": "t", "toolCallId": "1", "isError": False, "result": "y" * 400 * 1024,
                  "durationMs": 1}))
