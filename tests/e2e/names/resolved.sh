#!/bin/sh
# Makes <directory>/systemd-resolved and prints its path: in bin the programs systemd-resolved, resolvectl and polkitd, in
# policies what they may do on the bus and for whom, and in root what of their packages is not installed.
#
#   tests/e2e/names/resolved.sh <directory>
#
# Installing systemd-resolved would make it this machine's resolver, so that its package is unpacked instead, with all that
# would be installed along with it. The directory may be mounted elsewhere. The script may run twice at the same time: the
# second run waits for the first. Once made, it takes no network. Tests that run without root have no network but their own:
# there this script has to run once before them.
set -eu

parts=$(mkdir -p "$1" && cd "$1" && pwd)/systemd-resolved
mkdir -p "$parts"
script=$(realpath "$0")
cd "$parts"

fail() {
    exec >&4
    tail -n 5 log
    echo "$script: systemd-resolved and polkitd can neither be found nor downloaded to $parts; it needs apt-get and the" \
        "archive of Debian or Ubuntu ('apt-get update' may help)"
    echo "$script: a test without root has no network: run .ci/run, or this with the same argument, once before it"
}

works() {
    bin/systemd-resolved --version && bin/resolvectl --version && bin/polkitd --help &&
        [ -e policies/org.freedesktop.resolve1.conf ] && [ -e policies/org.freedesktop.PolicyKit1.conf ] &&
        [ -e policies/org.freedesktop.resolve1.policy ]
}

# Takes what is in root, else what is installed.
take() {
    rm -rf bin policies
    mkdir -p bin policies root
    libraries=$(find root -path '*/lib/*' -name 'lib*.so*' -printf '${0%%/*}/../%h\n' | sort -u | paste -sd:)
    for file in lib/systemd/systemd-resolved bin/resolvectl lib/polkit-1/polkitd \
        share/dbus-1/system.d/org.freedesktop.resolve1.conf share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf \
        share/polkit-1/actions/org.freedesktop.resolve1.policy; do
        for place in root/usr root /usr ''; do
            [ ! -e "$place/$file" ] || break
        done
        name=${file##*/}
        case $place/$file in
            *.conf | *.policy) cp "$place/$file" "policies/$name" ;;
            root*) printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "${0%%/*}/../%s" "$@"\n' "$libraries" "$place/$file" >"bin/$name" ;;
            *) ln -s "$place/$file" "bin/$name" ;;
        esac
    done
    chmod +x bin/*
}

# Touches neither the machine's packages nor their cache, so that it takes no lock and no root.
download() {
    rm -rf archives root
    mkdir -p archives/partial root
    apt-get --quiet --yes --no-install-recommends --download-only \
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Dir::Cache::archives="$parts/archives" \
        install systemd-resolved polkitd
    for archive in archives/*.deb; do
        dpkg-deb --extract "$archive" root
    done
    rm -r archives
}

exec 9>lock
flock 9
exec 3>&1 4>&2 >log 2>&1
trap '[ $? = 0 ] || fail' EXIT
if ! works; then
    take || true
    if ! works; then
        download
        take
        works
    fi
fi
echo "$parts" >&3
