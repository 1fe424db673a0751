# Turns freshly extracted Debian packages (no maintainer script has run) into a root for one program.
# $1 is the root.
set -eu
cat >"$1/etc/passwd" <<END
root:x:0:0:root:/:/usr/sbin/nologin
postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh
journal:x:10001:10001:journal:/:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
valv:x:65532:65532:valv:/:/usr/sbin/nologin
END
cat >"$1/etc/group" <<END
root:x:0:
postgres:x:999:
journal:x:10001:
nogroup:x:65534:
valv:x:65532:
END
echo 'hosts: files dns' >"$1/etc/nsswitch.conf"
mkdir -p "$1/etc/ssl/certs"
cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"
# Not needed to run anything: 200 MB of what is read by people, and the compiler for Postgres' JIT, without
# which it interprets.
rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/share/i18n "$1"/usr/share/info \
    "$1"/usr/lib/*/gconv "$1"/usr/lib/*/perl/*/CORE "$1"/usr/lib/*/libLLVM* "$1"/usr/lib/*/libz3* \
    "$1"/usr/lib/postgresql/17/lib/bitcode "$1"/usr/lib/postgresql/17/lib/llvmjit*
if [ -d "$1/usr/lib/postgresql" ]; then
    mkdir -p "$1/var/lib/postgresql" "$1/var/run/postgresql"
    chown 999:999 "$1/var/lib/postgresql" "$1/var/run/postgresql"
    chmod 3777 "$1/var/run/postgresql"
fi
