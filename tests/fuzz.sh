#!/usr/bin/env bash
# Coverage-guided fuzzing (libFuzzer, on the stable toolchain) of everything that reads bytes of strangers: the targets are
# the functions of fuzz/src, what they start from is fuzz/seeds. Two targets at a time.
#   FUZZ_SECONDS=600     for each target
#   FUZZ_TARGET=token    only this one
#   FUZZ_RECORD=yes      write the results into docs/fuzzing.md
# What was found is kept in $WSFLEET_CACHE/fuzz: the next run goes on from there.
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"

seconds=${FUZZ_SECONDS:-600}
targets=(frames json msgpack proto handshake token)
at_a_time=2
# one input: seconds (hangs, on a machine that may be busy), MiB of the process
hang=100 resident=1024
corpora=$CACHE/fuzz/corpus crashes=$CACHE/fuzz/crashes

if [ -n "${FUZZ_TARGET:-}" ]; then
    [[ " ${targets[*]} " == *" $FUZZ_TARGET "* ]] || die "no target $FUZZ_TARGET" "targets: ${targets[*]}"
    targets=("$FUZZ_TARGET")
fi

# Counters of edges and of what is compared, in every crate: the pass of LLVM that cargo-fuzz asks for, too. It needs no
# nightly compiler, unlike the sanitizers; there is no unsafe code here for them to watch.
"$HERE/deps.sh" fuzz
step "building the targets"
host=$(rustc -vV | sed -n 's/^host: //p')
build=${CARGO_TARGET_DIR:-$REPO/target}/fuzz
coverage=-Cpasses=sancov-module
for argument in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=" -Cllvm-args=-sanitizer-coverage-$argument"
done
coverage+=" -Ccodegen-units=1"
# with --target, programs that the build itself runs are compiled without the flags
RUSTFLAGS=$coverage cargo build --quiet --profile fuzz -p wsfleet-fuzz --bins --features libfuzzer \
    --target "$host" --target-dir "$build"

work=$(mktemp -d)
cleanup() {
    local pid
    for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

# fuzz TARGET: leaves its log and its exit code in $work
fuzz() {
    local target=$1 status=0 length=8192
    # more than a head, and than a token, may have
    case $target in handshake | token) length=20480 ;; esac
    mkdir -p "$corpora/$target" "$crashes"
    RUST_BACKTRACE=0 "$build/$host/fuzz/fuzz_$target" "$corpora/$target" "fuzz/seeds/$target" -dict="fuzz/dicts/$target.dict" \
        -max_total_time="$seconds" -max_len=$length -timeout=$hang -rss_limit_mb=$resident \
        -artifact_prefix="$crashes/$target-" -print_final_stats=1 >"$work/$target.log" 2>&1 || status=$?
    echo $status >"$work/$target.status"
}

# field TARGET PATTERN: the last number that follows the pattern in the target's log
field() { grep -Eo "$2 *[0-9]+" "$work/$1.log" | tail -n 1 | grep -Eo '[0-9]+$' || echo 0; }

# report TARGET: one line of the table; false when a promise was broken or nothing was tried
report() {
    local target=$1 inputs input result=ok
    inputs=$(field "$target" 'stat::number_of_executed_units:')
    input=$(grep -Eo 'Test unit written to .*' "$work/$target.log" | tail -n 1 | sed 's/.* to //' || true)
    [ "$(cat "$work/$target.status")" -eq 0 ] || result=failed
    [ "$inputs" -gt 0 ] || result=failed
    printf '| %-9s | %8s | %11s | %8s | %7s | %6s | %-6s |\n' "$target" "$seconds" "$inputs" \
        "$(field "$target" 'cov:')" "$(grep -Eo 'corp: [0-9]+' "$work/$target.log" | tail -n 1 | grep -Eo '[0-9]+' || echo 0)" \
        "$(field "$target" 'stat::peak_rss_mb:')" "$result" >>"$work/table"
    [ $result = failed ] || return 0
    grep -vE '^#[0-9]+|^(INFO|Dictionary|stat::)' "$work/$target.log" | tail -n 25 >&2
    if [ -n "$input" ]; then
        printf 'error: %s broke a promise with the input %s\n' "$target" "$input" >&2
        printf '       try it again:    cargo run -p wsfleet-fuzz --bin fuzz_%s -- %s\n' "$target" "$input" >&2
        printf '       when it is fixed: cp %s fuzz/seeds/%s/, give it a name that says what it is, and commit it\n' "$input" "$target" >&2
    else
        printf 'error: %s tried %s inputs and ended with %s\n' "$target" "$inputs" "$(cat "$work/$target.status")" >&2
    fi
    return 1
}

for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge $at_a_time ]; do wait -n || true; done
    step "fuzzing $target for $seconds s"
    fuzz "$target" &
done
wait

cat >"$work/table" <<'TABLE'
| target    |  seconds |      inputs | coverage |  corpus | MB RSS | result |
|-----------|---------:|------------:|---------:|--------:|-------:|--------|
TABLE
failed=0
for target in "${targets[@]}"; do report "$target" || failed=1; done
cat "$work/table"
if [ "${FUZZ_RECORD:-}" = yes ]; then
    doc=docs/fuzzing.md
    # a row for each target that ran: what is behind its name is a number there
    awk -F'|' 'function counted() { return NF > 7 && $3 ~ /^ *[0-9]+ *$/ }
        NR == FNR { if (counted()) row[$2] = $0; next }
        counted() && $2 in row { print row[$2]; next } { print }' "$work/table" $doc >"$work/doc"
    cp "$work/doc" $doc
fi
[ $failed -eq 0 ] || die "a target failed, see above"
