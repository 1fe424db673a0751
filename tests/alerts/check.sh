#!/usr/bin/env bash
# Checks the chart's alert rules, and runs their tests. Usage: check.sh PROMTOOL
set -euo pipefail
promtool=${1:?usage: check.sh PROMTOOL}
cd "$(dirname "$0")"
rules=../../charts/valv/files/alerts.yaml
runbook=../../docs/operations/alerts.md
metrics=../../docs/operations/metrics.md
fail() { echo "$1" >&2; exit 1; }

"$promtool" check rules "$rules"
"$promtool" test rules ./*.yaml

alerts=$(sed -n 's/^ *- alert: //p' "$rules")
[ -n "$alerts" ] || fail "$rules has no alerts"
for alert in $alerts; do
  grep -q "alertname=\"$alert\"\|alertname: $alert\$" ./*.yaml || fail "$alert has no test"
  grep -qx "## $alert" "$runbook" || fail "$alert has no section in $runbook"
  grep -q "alerts.md#${alert,,}\$" "$rules" || fail "$alert does not name its section in $runbook"
done
for metric in $(grep -o 'valv_[a-z_]*' "$rules" | sort -u); do
  grep -q "\`$metric\`" "$metrics" || fail "$metric is not documented in $metrics"
done
echo "$(wc -w <<<"$alerts") alerts, each tested, with a runbook, and over documented metrics"
