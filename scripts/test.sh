#!/bin/sh
# Runs all tests, in two processes: those that start servers, and the others, as both keep about one core busy. The
# output of the others follows when both have ended. With arguments, which are pytest's, one process runs what they name.
set -u
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi

log=$(mktemp)
.venv/bin/python -m pytest -m 'not server' >"$log" 2>&1 &
others=$!
trap 'kill "$others" 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

.venv/bin/python -m pytest -m server
servers=$?
echo '== the tests without servers'
wait "$others"
status=$?
cat "$log"
[ "$servers" -ne 0 ] && exit "$servers"
exit "$status"
