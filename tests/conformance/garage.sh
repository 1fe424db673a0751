#!/usr/bin/env bash
# Runs the conformance against a Garage that is started for it, behind TLS, and compares what is found with garage.txt.
# Usage: garage.sh GARAGE VALV CLUSTER. As root: all of it runs in a network of its own, and goes with this process.
set -euo pipefail
usage="usage: garage.sh GARAGE VALV CLUSTER"
garage=${1:?$usage} valv=${2:?$usage} cluster=${3:?$usage} work=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "error: $1" >&2; exit 1; }

if [ -z "$work" ]; then
  # Outside: it may still have to be fetched.
  "$cluster" postgres-root >/dev/null
  work=$(mktemp -d)
  trap 'rm -rf --one-file-system -- "$work"' EXIT
  unshare --net --mount --pid --ipc --fork --kill-child --mount-proc --propagation private \
    "$0" "$garage" "$valv" "$cluster" "$work"
  exit
fi

ip link set lo up
cd "$work"

# An authority, and a certificate for 127.0.0.1.
quietly() { "$@" >>openssl.log 2>&1 || { cat openssl.log >&2; fail "$1 failed"; }; }
new=(openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
quietly "${new[@]}" -x509 -keyout ca.key -out ca.pem -days 1 -subj "/CN=the authority of a trial"
quietly "${new[@]}" -keyout tls.key -out tls.csr -subj /CN=garage
quietly openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -out tls.crt \
  -extfile <(echo subjectAltName=IP:127.0.0.1)
cat >stunnel.conf <<END
foreground = yes
pid =
syslog = no
[s3]
accept = 127.0.0.1:443
connect = 127.0.0.1:3900
cert = $work/tls.crt
key = $work/tls.key
END
stunnel4 stunnel.conf >stunnel.log 2>&1 &

cat >garage.toml <<END
metadata_dir = "$work/meta"
data_dir = "$work/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:3901"
rpc_public_addr = "127.0.0.1:3901"
rpc_secret = "$(openssl rand -hex 32)"
[s3_api]
api_bind_addr = "127.0.0.1:3900"
s3_region = "garage"
END
export GARAGE_CONFIG_FILE=$work/garage.toml
"$garage" server >garage.log 2>&1 &

# until_it DOES WHAT…: waits until the command succeeds.
until_it() {
  local what=$1 end=$((SECONDS + 60))
  shift
  until "$@" >last.log 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { cat last.log garage.log stunnel.log >&2; fail "waited in vain until Garage $what"; }
    sleep 0.2
  done
}
ask() { "$garage" "$@" >ask.log 2>&1 || { cat ask.log garage.log >&2; fail "garage $1 $2 failed"; }; }
until_it answers "$garage" status
node=$("$garage" node id --quiet | cut -d@ -f1)
ask layout assign --zone here --capacity 2G "$node"
ask layout apply --version 1
until_it "takes a bucket" "$garage" bucket create valv

# Garage gives a key rights on a whole bucket, and no finer ones. Who lists must be able to read.
(
  umask 077
  cat "$here/garage.yaml" >store.yaml
  sed 's/^/    /' ca.pem >ca.indented
  sed -i -e '/CA_BUNDLE/{r ca.indented' -e 'd}' store.yaml
)
for identity in writer:--write committer:--write reader:--read 'janitor:--read --write'; do
  name=${identity%%:*}
  read -ra rights <<<"${identity#*:}"
  id=GK$(openssl rand -hex 12) secret=$(openssl rand -hex 32)
  ask key import --yes -n "$name" "$id" "$secret"
  ask bucket allow "${rights[@]}" valv --key "$name"
  printf '  %s: {accessKeyID: %s, secretAccessKey: %s}\n' "$name" "$id" "$secret" >>store.yaml
done
until_it "answers over TLS" curl --silent --cacert ca.pem --output /dev/null https://127.0.0.1

code=0
"$here/run.sh" "$valv" "$cluster" store.yaml | tee report.txt || code=$?
# What is not as it must be, by its name and its reason.
awk -F '  +' '$1 == "WRONG" || $1 == "NOT TRIED" { sub(/:.*/, "", $5); print $1 ": " $2 ": " $3 ": " $5 }' report.txt >found.txt
diff "$here/garage.txt" found.txt || fail "Garage is otherwise than tests/conformance/garage.txt and docs/conformance.md say"
[ "$code" = 1 ] || fail "the conformance ended with $code, and something is not as it must be"
printf '\n%s is as docs/conformance.md says: no backup goes there\n' "$("$garage" --version | head -1)"
