#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An ordinary manager, by busctl and socat: moves a VM in pre-copy, tells how far it is, and what became of it.
#
#     manager.sh SOURCE_BUS DESTINATION_BUS SOURCE_QMP DESTINATION_QMP [ENDPOINT]
#
# The buses are D-Bus addresses, the QMPs the UNIX sockets of two monitors; the destination QEMU was started with
# "-incoming defer". With ENDPOINT the destination is dialled there, and not where the ticket says.
set -euo pipefail

source_bus=$1 destination_bus=$2 source_qmp=$3 destination_qmp=$4
object=/org/vmferry/Broker1 broker=org.vmferry.Broker1 migration=org.vmferry.Migration1
options=(0)
[ $# -lt 5 ] || options=(1 endpoint s "$5")

call() { busctl --address="$1" --timeout=60 call org.vmferry.Broker1 "${@:2}" | tr -d '"'; }
get() { busctl --address="$1" get-property org.vmferry.Broker1 "$2" $migration "${@:3}" | tr -d '"'; }

# qmp SOCKET COMMAND [ARGUMENTS]: what QEMU returns, as one line of JSON.
qmp() {
    printf '{"execute": "qmp_capabilities"} {"execute": "%s", "arguments": %s}\n' "$2" "${3:-{\}}" |
        socat -t 0.2 - "UNIX-CONNECT:$1" | tr -d '\r' | tail -n 1
}
# The first number, or word, of this name in a line of JSON.
number() { sed -nE "s/.*\"$1\": ([0-9]+).*/\1/p" <<< "$2" | grep . || echo 0; }
word() { grep -oE "\"$1\": \"[a-z-]+\"" <<< "$2" | head -n 1 | cut -d '"' -f 4; }

# The destination's QEMU listens on its socket before the source's connects to the other one.
read -r _ incoming ticket < <(call "$destination_bus" $object $broker PrepareIncoming 'sa{sv}' web1 0)
read -r _ _ _ socket < <(get "$destination_bus" "$incoming" Sockets)
qmp "$destination_qmp" migrate-incoming "{\"uri\": \"unix:$socket\"}" > /dev/null
read -r _ outgoing < <(call "$source_bus" $object $broker StartOutgoing 'ssa{sv}' web1 "$ticket" "${options[@]}")
read -r _ _ _ socket < <(get "$source_bus" "$outgoing" Sockets)
qmp "$source_qmp" migrate "{\"uri\": \"unix:$socket\"}" > /dev/null

state="" phase="" outcome=""
while [ "$state" != finished ]; do
    # State and Phase, as every client sees them.
    before="$state $phase"
    read -r _ state < <(get "$source_bus" "$outgoing" State)
    read -r _ phase < <(get "$source_bus" "$outgoing" Phase)
    # Interrupted: nothing is lost, and the VM is started nowhere. QEMU waits, and goes on when the network is back.
    # What would end it is Cancel, or QEMU's connections that are closed after resume-timeout-usec.
    [ "$before" = "$state $phase" ] || echo "state $state, phase $phase"
    if [ -n "$outcome" ]; then
        sleep 0.2
        continue
    fi

    # What QEMU says goes to the broker, until there is an outcome. Where the VM is, both QEMUs know together.
    info=$(qmp "$source_qmp" query-migrate)
    case $(word status "$info") in
    completed)
        run_state=$(word status "$(qmp "$destination_qmp" query-status)")
        [ "$run_state" != inmigrate ] || continue # it is still to start
        outcome=moved
        ;;
    failed | cancelled)
        run_state=$(word status "$(qmp "$source_qmp" query-status)")
        outcome=not-moved
        [ "$run_state" = running ] || [ "$run_state" = paused ] || outcome=unknown
        ;;
    *)
        ram=$(grep -oE '"ram": \{[^}]*\}' <<< "$info" || true)
        call "$source_bus" "$outgoing" $migration ReportProgress 'a{sv}' 3 phase s pre-copy \
            memory-total t "$(number total "$ram")" memory-remaining t "$(number remaining "$ram")" || true
        continue
        ;;
    esac
    echo "outcome $outcome"
    call "$source_bus" "$outgoing" $migration Report 'sa{sv}' $outcome 2 run-state s "$run_state" \
        downtime-usec t "$(number downtime "$info")000"
    [ $outcome = moved ] || call "$source_bus" "$outgoing" $migration Cancel
done
read -r _ result < <(get "$source_bus" "$outgoing" Result)
echo "result $result"
[ "$outcome" = moved ]
