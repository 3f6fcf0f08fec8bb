#!/bin/sh
# Puts Triton into .venv-triton, for the tests of the GPU kernels, which run in its interpreter where there is no GPU.
# Beside the environment and not in it: where vLLM sees Triton, it takes the code paths made for GPUs. The version and
# its hashes are those of the CUDA environment, so there is nothing to do where that is the one installed.
set -eu
cd "$(dirname "$0")/.."

BIN=.venv/bin
TARGET=.venv-triton

"$BIN/python" -c 'import triton' 2>/dev/null && exit 0
if [ "$(uname -m)" != x86_64 ]; then
    echo "Triton is locked for x86-64 only: the tests of the GPU kernels will be skipped"
    exit 0
fi
wanted="$(sed -n '/^triton==/,/[^\\]$/p' requirements/cuda.txt)"
[ "$(cat "$TARGET/installed.txt" 2>/dev/null)" = "$wanted" ] && exit 0

echo "installing $(echo "$wanted" | head -n 1 | cut -d' ' -f1) into $TARGET"
rm -rf "$TARGET"
mkdir "$TARGET"
echo "$wanted" >"$TARGET/wanted.txt"
"$BIN/python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: --target "$TARGET" -r "$TARGET/wanted.txt"
mv "$TARGET/wanted.txt" "$TARGET/installed.txt"
