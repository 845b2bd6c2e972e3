#!/bin/sh
# Installs the Debian packages that are missing; asks for root only if something is. Usage: deps.sh build|test
set -eu
build="gcc meson ninja-build pkg-config libmicrohttpd-dev libuv1-dev libcurl4-openssl-dev libjansson-dev libpcre2-dev \
libutf8proc-dev libssl-dev libedit-dev libseccomp-dev ca-certificates python3 python3-venv"
test="libcmocka-dev tmux docker-registry"
command -v npm >/dev/null || test="$test nodejs npm" # often there from elsewhere
case "${1:-build}" in
build) want=$build ;;
test) want="$build $test" ;;
*) echo "usage: deps.sh build|test" >&2; exit 2 ;;
esac
command -v dpkg-query >/dev/null || {
    echo "This is no Debian or Ubuntu: install the equivalents of these packages yourself: $want" >&2
    exit 0
}
missing=
for p in $want; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "Installing:$missing"
as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "Error: these packages are missing and there is no sudo; run as root: apt-get install$missing" >&2
        exit 1
    }
    as_root=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { $as_root apt-get update && $as_root apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "Error: apt-get could not install:$missing" >&2
    exit 1
fi
