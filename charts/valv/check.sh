#!/usr/bin/env bash
# Lints the chart and renders it in the ways in which it is installed. Usage: check.sh HELM
set -euo pipefail
helm=${1:?usage: check.sh HELM}
chart=$(cd "$(dirname "$0")" && pwd)
images=(--set images.valv=registry.example/valv:1 --set images.postgres=registry.example/postgres:17
  --set images.proxy=registry.example/proxy:1)

"$helm" lint --strict "$chart" "${images[@]}"
render() { "$helm" template valv "$chart" --namespace valv-system "${images[@]}" "$@"; }

for engine in Standard Cilium; do
  render --set network.engine=$engine >/dev/null && echo "renders for the network engine $engine"
done
refused() {
  local what=$1; shift
  if render "$@" >/dev/null 2>&1; then echo "not refused: $what" >&2; exit 1; fi
  echo "refused: $what"
}
refused "a value that nobody knows" --set nobody=knows
refused "no image" --set images.valv=
refused "no replica" --set replicas=-1
