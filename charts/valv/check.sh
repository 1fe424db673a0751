#!/usr/bin/env bash
# Lints the chart and renders it in the ways in which it is installed. Usage: check.sh HELM
set -euo pipefail
helm=${1:?usage: check.sh HELM}
chart=$(cd "$(dirname "$0")" && pwd)
images=(--set images.valv=registry.example/valv:1 --set images.postgres=registry.example/postgres:17
  --set images.proxy=registry.example/proxy:1 --set location.region=se-sto1 --set location.country=SE)

render() { "$helm" template valv "$chart" --namespace valv-system "${images[@]}" "$@"; }
fail() { echo "$1" >&2; exit 1; }

# Prints the lines of roles in the manifests on standard input that have a `*`; fails if there is no role at all.
wildcards() {
  awk '
    /^---/ { role = 0 }
    /^kind: (Cluster)?Role$/ { role = 1; roles++ }
    role { sub(/(^|[[:space:]])#.*/, "") }
    role && /[*]/
    END { if (!roles) { print "no role is rendered" >"/dev/stderr"; exit 1 } }'
}

"$helm" lint --strict "$chart" "${images[@]}"

for engine in Standard:NetworkPolicy Cilium:CiliumNetworkPolicy; do
  rendered=$(render --set "network.engine=${engine%:*}")
  grep -qx "kind: ${engine#*:}" <<<"$rendered" || fail "no ${engine#*:} for the network engine ${engine%:*}"
  wild=$(wildcards <<<"$rendered")
  [ -z "$wild" ] || fail "a role has a *: $wild"
  echo "renders for the network engine ${engine%:*}, and no role has a *"
done

# refused WHAT WORDS VALUE…: rendering with the values fails, and says the words.
refused() {
  local what=$1 words=$2 errors
  shift 2
  if errors=$(render "$@" 2>&1 >/dev/null); then fail "not refused: $what"; fi
  [[ $errors == *"$words"* ]] || fail "refused for another reason than $what: $errors"
  echo "refused: $what"
}
refused "a value that nobody knows" "additional properties 'nobody' not allowed" --set nobody=knows
refused "no image" "images.valv is not given" --set images.valv=
refused "no region" "location.region is not given" --set location.region=
refused "a country that is none" "'/location/country'" --set location.country=Sweden
refused "a name of the region that is none" "'/location/alsoNamed/0'" --set 'location.alsoNamed={eu/3}'
refused "an image without its registry" "'/images/valv'" --set images.valv=valv:1
refused "no replica" "'/operator/replicas': minimum" --set operator.replicas=0
refused "a store's network without its ports" "missing property 'ports'" --set 'stores.egress[0].cidr=203.0.113.0/24'

opened=$(render --set 'stores.egress[0].cidr=203.0.113.0/24' --set 'stores.egress[0].ports={443,9000}')
grep -q 'cidr: "203.0.113.0/24"' <<<"$opened" && grep -q 'port: 9000' <<<"$opened" || fail "no way to the stores"
if render | grep -q '203.0.113'; then fail "a way that nobody asked for"; fi
echo "the operator reaches the stores that stores.egress names"
grep -q 'backupstores/status,' <<<"$opened" || fail "nobody writes the status of stores"

# A policy that nothing binds refuses nothing.
unbound=$(render | awk '
  /^---/ { kind = "" }
  /^kind: / { kind = $2 }
  /^  name: / && kind == "ValidatingAdmissionPolicy" { policies[$2] = 1 }
  /^  policyName: / { delete policies[$2] }
  END { for (policy in policies) print policy }')
[ -z "$unbound" ] || fail "an admission policy is not bound: $unbound"
bound=$(render | grep -c '^kind: ValidatingAdmissionPolicyBinding$')
[ "$bound" -ge 10 ] || fail "only $bound admission policies are bound"
echo "$bound admission policies, each of them bound"
grep -q 'valv.eu/role: verification' <<<"$opened" || fail "no wall around what reads backups back"
[ "$(grep -c 'cidr: "203.0.113.0/24"' <<<"$opened")" = 3 ] || fail "what reads backups back or copies them does not reach the stores"
grep -q 'concurrent: 16' <<<"$opened" || fail "no limit of backups"
echo "what reads backups back has a wall, and a way to the stores"
if grep -q 'kind: PrometheusRule' <<<"$opened"; then fail "alert rules that nobody asked for"; fi
alerts=$(render --set alerts.enabled=true --set alerts.labels.release=prometheus --set alerts.runbooks=https://docs.example/valv/)
grep -q 'runbook_url: https://docs.example/valv/alerts.md#valvwatchdog' <<<"$alerts" || fail "no runbook for the watchdog"
grep -q 'summary: Tenant {{ $labels.tenant }} is not backed up' <<<"$alerts" || fail "the chart has changed the alerts' templates"
[ "$(grep -c '      - alert: ' <<<"$alerts")" -eq "$(grep -c '      - alert: ' "$chart/files/alerts.yaml")" ] || fail "alerts are missing"
echo "the alert rules are installed when they are asked for"

auditor=$(render | awk '/^---/ { doc = "" } { doc = doc $0 "\n" } /^  name: valv-auditor$/ { found = 1 } found && /^---/ { done = 1 } found && !done { print }')
grep -q 'restoredrills' <<<"$auditor" || fail "no role for auditors"
if grep -Eq 'secrets|configmaps|pods|create|update|patch|delete' <<<"$auditor"; then fail "auditors may more than read: $auditor"; fi
echo "auditors may read Valv's kinds and events, and nothing else"
grep -q 'restoredrills/status' <<<"$opened" || fail "nobody writes the status of drills"

# The keys of drills lie where the operator has no right, whatever the values say.
refused "the keys in the operator's own namespace" "keys.namespace is the operator's own" --set keys.namespace=valv-system
refused "the keys in a namespace like a drill's" "keys.namespace begins like" --set keys.namespace=drill-keys
without=$(render --set keys.keyholder=false)
grep -q 'valv-keys' <<<"$(grep -v '^ *#' <<<"$without" | grep -v "orValue('')")" && fail "something of the key holder is there without it"
# A binding in the namespace of the keys is for the key holder alone.
subjects=$(render | awk '/^---/ { kind = ""; place = "" } /^kind:/ { kind = $2 } /^  namespace:/ { place = $2 }
  kind == "RoleBinding" && place == "valv-keys" && /^ *- kind: ServiceAccount/ { getline; print $2 }')
[ "$subjects" = valv-keyholder ] || fail "others than the key holder are bound in valv-keys: $subjects"
echo "the keys of drills are the key holder's alone"
drills=$(render --set drills.concurrent=9 --set drills.storageClassName=gone)
grep -q 'concurrent: 9' <<<"$drills" && grep -q 'storageClassName: gone' <<<"$drills" || fail "the settings of drills do not reach the operator"
refused "no drill at all" "'/drills/concurrent': minimum" --set drills.concurrent=0

# Nobody goes into a drill, asks it by way of the API server, or takes the operator's way in away.
guard=$(render --show-only templates/admission/drill-guard.yaml)
for way in pods/exec pods/attach pods/portforward pods/proxy services/proxy pods/ephemeralcontainers rolebindings; do
  grep -Eq "resources: \[.*\b$way\b" <<<"$guard" || fail "$way of a drill is not guarded"
done
grep -q 'object.?subjects == oldObject.?subjects && object.?roleRef == oldObject.?roleRef' <<<"$guard" || fail "whom a drill's bindings bind can be changed"
due=$(render --show-only templates/admission/backup-guard.yaml | awk '/^---/ { doc = "" } { doc = doc $0 "\n" } /operations: \[UPDATE, DELETE\]/ { print doc }')
grep -q 'resources: \[backups, restoredrills\]' <<<"$due" || fail "drills of the schedule can be cancelled or deleted"
named=$(render --set 'stores.egress[0].cidr=203.0.113.0/24' --set 'stores.egress[0].ports={443}' --set 'stores.egress[0].stores={helsinki}')
grep -A1 '^ *stores:$' <<<"$named" | grep -q -- '- helsinki' || fail "which store answers where does not reach the operator"
echo "what a drill restored is guarded, and its drills of the schedule are"
