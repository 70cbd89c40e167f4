#!/bin/sh
# Makes the Python environment of the OpenAI test and prints the path of its interpreter.
#
# The environment lives outside the repository, in ${XDG_CACHE_HOME:-~/.cache}/hivevpn-e2e, and is made once for each
# version of requirements.txt and of Python. It may run twice at the same time: the second run waits for the first.
# Only prebuilt wheels are installed. Without a package index it fails. Tests that run without root have no network but
# their own: there this script has to run once before them.
set -eu

requirements=$(dirname "$0")/requirements.txt
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hivevpn-e2e
key=$( (python3 -VV && cat "$requirements") | sha256sum | cut -c1-16)
venv=$cache/openai-$key

mkdir -p "$cache"
exec 9>"$cache/openai.lock"
flock 9

# The stamp is written last: an environment without it was interrupted, one without Python outlived it; both are made again.
if [ ! -e "$venv/complete" ] || [ ! -x "$venv/bin/python" ]; then
    rm -rf "$venv"
    {
        python3 -m venv "$venv" &&
            "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
                --requirement "$requirements"
    } >&2 || {
        echo "setup.sh: the packages of $requirements could not be installed into $venv;" \
            "it needs python3 with venv and a reachable package index" >&2
        echo "setup.sh: a test without root has no network: run $0 once by hand before it" >&2
        exit 1
    }
    touch "$venv/complete"
fi
echo "$venv/bin/python"
