#!/usr/bin/env bash
# Runs `valv conformance FILE` where it has a PostgreSQL 17. Usage: run.sh VALV CLUSTER FILE
# As root: in the root file system of the PostgreSQL image, which CLUSTER makes, as that image's user. As anybody else: with
# the PostgreSQL 17 of this machine. FILE holds keys: its copy is in memory only, and goes with the process.
set -euo pipefail
usage="usage: run.sh VALV CLUSTER FILE"
valv=${1:?$usage} cluster=${2:?$usage} file=${3:?$usage}
programs=/usr/lib/postgresql/17/bin
could_not_try=2
fail() { echo "error: $1" >&2; exit "$could_not_try"; }

if [ "$(id -u)" != 0 ]; then
  [ -x "$programs/postgres" ] || fail "no $programs: install postgresql-17, or run this as root, which brings one"
  exec "$valv" conformance "$file" --programs "$programs"
fi

[ -f "$file" ] || fail "there is no file $file"
[ -z "$(find -L "$file" -perm /077)" ] || fail "$file holds keys, and others than you may read it: chmod 600 $file"
image=$("$cluster" postgres-root) || fail "there is no PostgreSQL to try with"
root=$(mktemp -d)
trap 'rm -rf --one-file-system -- "$root"' EXIT
mkdir -p "$root"/{dev,etc/ssl/certs,proc,tmp,usr}
chmod 755 "$root"
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$root/$name"; done
echo 'postgres:x:999:999::/:/bin/false' >"$root/etc/passwd"
# The names and the authorities that this machine knows.
for name in hosts nsswitch.conf resolv.conf ssl/certs/ca-certificates.crt; do
  [ ! -e "/etc/$name" ] || cp -L "/etc/$name" "$root/etc/$name"
done
[ -z "${SSL_CERT_FILE:-}" ] || cp -L "$SSL_CERT_FILE" "$root/etc/ssl/certs/ca-certificates.crt"
touch "$root/valv"

# The mounts are seen by nobody else, and go with the process. So does all that it starts.
code=0
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin IMAGE="$image" ROOT="$root" VALV="$(realpath "$valv")" FILE="$file" \
  PROGRAMS="$programs" unshare --mount --pid --ipc --fork --kill-child --propagation private sh -ec '
    mount --bind "$IMAGE/usr" "$ROOT/usr"
    mount --rbind /dev "$ROOT/dev"
    mount -t proc proc "$ROOT/proc"
    mount --bind "$VALV" "$ROOT/valv"
    mount -t tmpfs -o mode=0700,uid=999,gid=999 tmpfs "$ROOT/tmp"
    install --mode=600 --owner=999 --group=999 "$FILE" "$ROOT/tmp/store.yaml"
    exec chroot --userspec=999:999 --groups= "$ROOT" /valv conformance /tmp/store.yaml --programs "$PROGRAMS"' \
  || code=$?
exit "$code"
