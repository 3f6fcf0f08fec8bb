#!/bin/sh
# Make the demo checkpoint from nothing: about 45 CPU minutes. `make demo` calls it, in the environment of .venv.
#   sh demo/make.sh
set -eu
runs=demo/runs/$(date +%Y%m%d-%H%M%S)
bin=.venv/bin
mkdir -p "$runs"

say() {
    echo "\$ $*"
    "$@"
}

make_it() {
    for part in base chemistry replay; do
        echo "\$ python -m demo.texts $part > $part.jsonl"
        $bin/python -m demo.texts $part > "$runs/$part.jsonl"
    done
    # Rows of 256 tokens teach the facts sooner, rows of 512 long chats.
    say $bin/tokenformer train demo/shape.yml --data "$runs/base.jsonl" --out "$runs/short" \
        --vocabulary 2048 --row-tokens 256 --epochs 2
    say $bin/tokenformer train "$runs/short" --data "$runs/base.jsonl" --out "$runs/base" --row-tokens 512 --epochs 1 \
        --learning-rate 0.003
    say $bin/tokenformer grow "$runs/base" "$runs/grown" --name chemistry \
        --tokens query=32,key=32,value=32,output=32,ffn=128
    say $bin/tokenformer train "$runs/grown" --stage chemistry --data "$runs/chemistry.jsonl" \
        --replay "$runs/replay.jsonl" --out "$runs/chemistry" --row-tokens 256 --epochs 3
}

# Small matrices: a second thread helps little.
export OMP_NUM_THREADS=1
lscpu | grep '^Model name' > "$runs/training.log" || true
make_it 2>&1 | sed -u "s#$runs/##g; s#$bin/##g" | tee -a "$runs/training.log"
$bin/python -m demo.publish "$runs/chemistry" demo/checkpoint --log "$runs/training.log"
