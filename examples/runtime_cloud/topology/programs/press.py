#!/usr/bin/env python3
"""Presses once a second until it is told to stop; SIGHUP makes it read its recipe again."""

import signal
import sys
import time


def reload(_number, _frame):
    print("the recipe was read again", flush=True)


signal.signal(signal.SIGHUP, reload)
signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))

stroke = 0
while True:
    stroke += 1
    print(f"stroke {stroke}", flush=True)
    time.sleep(1)
