#!/bin/sh
# Greets whom the payload names, and brings an object.
name=$(sed -n 's/.*"name"[[:space:]]*:[[:space:]]*"\([A-Za-z0-9 _-]*\)".*/\1/p')
printf '{"type":"result","value":{"greeting":"hello %s"}}\n' "${name:-world}"
