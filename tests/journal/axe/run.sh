#!/usr/bin/env bash
# Checks the pages of a journal that runs as a tenant, in a browser. Usage: run.sh CLUSTER
# CLUSTER is the program that knows the local cluster, which must be up with Valv installed.
set -euo pipefail
cluster=${1:?usage: run.sh CLUSTER}
cd "$(dirname "$0")"

for program in chromium node npm; do
  command -v "$program" >/dev/null || { echo "$program is missing: \`make axe\` installs it" >&2; exit 1; }
done
npm ci --ignore-scripts --no-audit --no-fund --silent

kubectl=$($cluster programs --path kubectl)
KUBECONFIG=${KUBECONFIG:-$($cluster kubeconfig)}
export KUBECONFIG
image=$($cluster images | awk '$1 == "journal-2" { print $2 }')
host=axe.journal.example
remove() { "$kubectl" delete journaltenant axe --ignore-not-found >/dev/null; }
trap remove EXIT
remove
sed "s#IMAGE#$image#" tenant.yaml | "$kubectl" apply -f - >/dev/null
"$kubectl" wait --for=condition=Ready journaltenant/axe --timeout=180s
port=$("$kubectl" get journaltenant axe -o jsonpath='{.status.journal.nodePort}')
node=$("$kubectl" -n journal-axe get pod -l valv.eu/role=journal -o jsonpath='{.items[0].status.hostIP}')

JOURNAL_URL="https://$host:$port" JOURNAL_USER=SE2321000016-1003 JOURNAL_PASSWORD=hemligt \
  JOURNAL_CHROMIUM_ARGS="--host-resolver-rules=MAP $host $node" npm run --silent check
