#!/usr/bin/env bash
# parts.sh MAKE TARGET...: makes each target, also when one before it failed, and says at the end what came of each.
set -uo pipefail

make=$1
shift
table=
code=0
for part in "$@"; do
  begun=$SECONDS
  if "$make" "$part"; then came=passed; else came=FAILED code=1; fi
  table+=$(printf '  %-20s %s in %s s' "$part" "$came" "$((SECONDS - begun))")$'\n'
done
printf '\n%s' "$table"
exit "$code"
