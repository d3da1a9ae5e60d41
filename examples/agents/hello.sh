#!/bin/sh
# Greets whom the payload names, and brings an object with the payload as it came. A line feed can only stand between the
# parts of a JSON value, so a payload without its line feeds is the same.
payload=$(tr -d '\r\n')
name=$(printf '%s' "$payload" | sed -n 's/^{.*"name"[[:space:]]*:[[:space:]]*"\([A-Za-z0-9 _-]*\)".*/\1/p')
printf '{"type":"result","value":{"greeting":"hello%s","payload":%s}}\n' "${name:+ $name}" "${payload:-null}"
