#!/usr/bin/env bash
# The tests that are worth more the longer they run, with long settings; their short form is in `make test`.
#   usage: endurance.sh chaos | soak | found | presence
#   CHAOS_KILLS=20 CHAOS_SECONDS=600 CHAOS_CLIENTS=2000   how many gateways are killed, in what time, under how many clients
#   CHAOS_SEED=n                                          the same times and gateways again
#   SOAK_MINUTES=60 SOAK_VISITS=60                        how long connections come and go, and how many a second
#   PRESENCE_CLIENTS=10000 PRESENCE_KILLS=10              members of one room, and gateways that are killed under them
#   RECORD=yes                                            write the result into docs/endurance.md
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"

case ${1:-} in
    chaos)
        export CHAOS_KILLS=${CHAOS_KILLS:-20} CHAOS_SECONDS=${CHAOS_SECONDS:-600} CHAOS_CLIENTS=${CHAOS_CLIENTS:-2000}
        test=protocol_chaos
        ;;
    soak)
        export SOAK_MINUTES=${SOAK_MINUTES:-60}
        test=protocol_soak
        ;;
    found) test=broker_found ;;
    presence)
        export PRESENCE_CLIENTS=${PRESENCE_CLIENTS:-10000} PRESENCE_KILLS=${PRESENCE_KILLS:-10}
        export PRESENCE_WINDOW=${PRESENCE_WINDOW:-20}
        test=protocol_presence_rollout
        ;;
    *) die "unknown run ${1:-}" "runs: chaos soak found presence" ;;
esac

"$HERE/deps.sh" tests
step "building the programs and the test"
cargo build --quiet --workspace --bins --test "$test"
WSFLEET_PROGRAMS=${CARGO_TARGET_DIR:-$REPO/target}/debug
export WSFLEET_PROGRAMS
log=$(mktemp)
trap 'rm -f "$log"' EXIT
step "running $test"
cargo test --quiet --workspace --test "$test" -- --nocapture 2>&1 | tee "$log"

[ "${RECORD:-}" = yes ] || exit 0
# the rows between the head of the run's table and its end are replaced
doc=docs/endurance.md
# a test's name may stand before its row
grep -o 'row: .*' "$log" | sed 's/^row: //' >"$log.rows"
awk -v mark="<!-- $1 -->" -v rows="$log.rows" '
    $0 == mark { print; inside = 1; next }
    inside && /^\|/ { if (++head <= 2) print; next }
    inside { while ((getline row <rows) > 0) print row; inside = 0 }
    { print }
    END { if (inside) while ((getline row <rows) > 0) print row }' "$doc" >"$log.doc"
cp "$log.doc" "$doc"
rm -f "$log.rows" "$log.doc"
step "written to $doc"
