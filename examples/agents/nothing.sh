#!/bin/sh
# Takes its payload and brings nothing.
cat > /dev/null
