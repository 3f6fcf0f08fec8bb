#!/bin/sh
# Builds the local environment .venv from the lock files: `make setup`, and every other target that needs it.
# Returns at once when the environment is up to date; an interrupted run is continued by the next one.
# pip's own settings (PIP_* variables, pip.conf) are honoured. PYTHON=/path/to/python chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."

TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
VENV=.venv
LOG=$VENV/setup.log
STAMP=$VENV/setup.stamp

# The directory belongs to the stamp: scripts in an environment hold its absolute path.
wanted="$(cat pyproject.toml setup.py requirements/*.txt scripts/setup.sh model_impl/kernels/cpu/csrc/*.[ch] | cksum) $(pwd)"
is_current() { [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ]; }
is_current && exit 0

started=$(date +%s)
say() { printf '[%3d s] %s\n' "$(($(date +%s) - started))" "$1"; }
fail() {
    printf 'set-up failed: %s\n' "$1" >&2
    exit 1
}

mkdir -p "$VENV"
if command -v flock >/dev/null; then # two runs at once would spoil each other's work
    exec 9>"$VENV/setup.lock"
    flock -n 9 || {
        say "waiting for another set-up of this directory"
        flock 9
        is_current && exit 0
    }
fi

[ "$(uname -s)" = Linux ] || fail "vLLM's builds are for Linux, this is $(uname -s)"

# An interpreter counts if it runs, is 3.11 to 3.13 and can make environments with pip.
find_python() {
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            "$candidate" -c 'import ensurepip, venv' 2>/dev/null && echo "$candidate" && return
            lacking="$lacking $candidate"
        fi
    done
}
lacking=
python=$(find_python)
[ -n "$python" ] || fail "no Python 3.11, 3.12 or 3.13 with the venv and ensurepip modules was found
(tried ${PYTHON:-python3.11, python3.12, python3.13, python3}; on Debian and Ubuntu: apt install python3-venv)"

build=cpu
if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    build=cuda
    [ "$(uname -m)" = x86_64 ] || fail "the CUDA lock is for x86-64; on $(uname -m) install vllm and this project by hand"
fi

# One of another place, interpreter or build is made anew; everything else is continued.
made_of="$("$python" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)') $build $(pwd)"
if [ "$(cat "$VENV/setup.made_of" 2>/dev/null)" != "$made_of" ] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$VENV/bin" "$VENV/include" "$VENV/lib" "$VENV/lib64" "$VENV/pyvenv.cfg" "$STAMP"
    say "making .venv with $("$python" -V) for the $build build of vLLM"
    "$python" -m venv "$VENV" >"$LOG" 2>&1 || fail "python -m venv: $(tail -n 3 "$LOG")"
    echo "$made_of" >"$VENV/setup.made_of"
fi
packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# pip lists INSTALLER in RECORD as the last act of an installation; what lacks it was interrupted and is done again.
for info in "$packages"/*.dist-info; do
    [ -d "$info" ] && ! grep -qs '/INSTALLER,' "$info/RECORD" && rm -rf "$info"
done

worker=
trap '[ -z "$worker" ] || kill "$worker" 2>/dev/null; echo "set-up interrupted; the next run continues it" >&2; exit 130' INT TERM

# pip in the background, one line of progress every 15 seconds. $1: how many packages it has to do with.
pip() {
    total=$1
    shift
    : >"$LOG"
    before=$(find "$packages" -maxdepth 1 -name '*.dist-info' | wc -l)
    "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check --no-deps "$@" >>"$LOG" 2>&1 &
    worker=$!
    seconds=0
    while kill -0 "$worker" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        [ $((seconds % 15)) -eq 0 ] || continue
        if grep -q '^Installing collected' "$LOG"; then
            now=$(find "$packages" -maxdepth 1 -name '*.dist-info' | wc -l)
            say "  installed $((now - before)) of $total"
        else
            say "  fetched $(grep -c -E '^(Collecting|Processing)' "$LOG" || :) of $total"
        fi
    done
    wait "$worker" && status=0 || status=$?
    worker=
    return "$status"
}
count() { grep -c '==' "$1"; }
give_up() {
    tail -n 15 "$LOG" >&2
    fail "$1 (all of pip's output: $LOG; the same command again continues)"
}

if [ "$build" = cpu ]; then
    torch=requirements/cpu-torch.txt
    say "installing $(grep '==' $torch)"
    if ! pip 1 -r $torch; then
        grep -q 'No matching distribution' "$LOG" || give_up "torch could not be installed"
        say "the configured package sources hold no CPU build of torch: taking it from $TORCH_CPU_INDEX"
        pip 1 --index-url "$TORCH_CPU_INDEX" -r $torch || give_up "torch could not be installed"
    fi
fi
lock=requirements/$build.txt
say "installing $(count "$lock") locked packages, the long step"
pip "$(count "$lock")" --require-hashes --only-binary=:all: -r "$lock" || give_up "the locked packages could not be installed"
say "installing the project itself"
pip 1 --no-build-isolation -e . || give_up "the project could not be installed"

if [ "$build" = cpu ]; then
    surplus=$(cd "$packages" && find . -maxdepth 1 -name '*.dist-info' |
        sed -n -E 's#^\./((nvidia|cuda|triton|torchvision|torchaudio|torchcodec)[^-]*)-.*#\1#p' | tr '\n' ' ')
    [ -z "$surplus" ] || fail "packages that do not belong in the CPU environment: $surplus"
fi
echo "$wanted" >"$STAMP.new"
mv "$STAMP.new" "$STAMP"
say "ready: .venv ($build build, $(du -sh "$VENV" | cut -f1))"
