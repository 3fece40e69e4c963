#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A whole migration with descriptors only, by gdbus (GLib 2.58 and later pass descriptors; busctl does not).
#
#     fd-client.sh SOURCE_BUS DESTINATION_BUS
#
# Whoever calls it has these open: 3, a socket that is the source QEMU's, and 4, one that is the destination QEMU's (the
# other ends of what QEMU got by getfd); 5 and 6, the two ends of a peer connection for control; 7 and 8, those of one
# for the channel. gdbus cannot keep a descriptor that it receives, so it is AddStream here and not OpenStream.
set -euo pipefail

broker=/org/vmferry/Broker1

# Calls a method of an object on the bus at an address.
call() {
    DBUS_SESSION_BUS_ADDRESS=$1 gdbus call --session --timeout 60 --dest org.vmferry.Broker1 \
        --object-path "$2" --method "org.vmferry.$3" "${@:4}"
}

# The n-th quoted text of a reply.
text() { sed -E "s/[^']*('([^']*)'[^']*){$1}.*/\2/"; }

source=$1 destination=$2
socket="'sockets': <{'migrate': ''}>"
reply=$(call "$destination" $broker Broker1.PrepareIncoming web1 "{$socket, 'endpoints': <@as []>}")
incoming=$(text 1 <<< "$reply")
ticket=$(text 2 <<< "$reply")
outgoing=$(call "$source" $broker Broker1.StartOutgoing web1 "$ticket" "{$socket}" | text 1)

call "$source" "$outgoing" Migration1.AddPeerConnection 5
call "$destination" "$incoming" Migration1.AddPeerConnection 6
call "$source" "$outgoing" Migration1.AddPeerConnection 7
call "$destination" "$incoming" Migration1.AddPeerConnection 8
call "$source" "$outgoing" Migration1.AddStream migrate 3
call "$destination" "$incoming" Migration1.AddStream migrate 4
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-

call "$source" "$outgoing" Migration1.Wait
call "$destination" "$incoming" Migration1.Wait
