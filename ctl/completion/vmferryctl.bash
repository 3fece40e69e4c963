# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for vmferryctl(1)

# What 'list' says, of the broker that the command line names so far: its ids, or its VMs.
__vmferryctl_listed() {
    local -a broker=()
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --user) broker+=(--user) ;;
            --address | --host)
                [[ ${COMP_WORDS[i + 1]-} == = ]] && broker+=("${COMP_WORDS[i]}=${COMP_WORDS[i + 2]-}")
                ;;
            -H) broker+=(-H "${COMP_WORDS[i + 1]-}") ;;
        esac
    done
    # An address has '=' and ':', at which bash breaks words.
    if [[ $COMP_LINE =~ --address[=\ ]([^ ]+) ]]; then
        broker=("--address=${BASH_REMATCH[1]}")
    fi
    vmferryctl --no-legend --no-pager --no-ask-password "${broker[@]}" list 2>/dev/null </dev/null |
        while read -r id role state vm _; do
            case $1 in
                migrations) printf '%s\n%s\n' "$id" "$vm" ;;
                finished) [[ $state != finished ]] || printf '%s\n' "$id" ;;
            esac
        done
}

_vmferryctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
    local common='--host= --user --address= --json= --quiet --no-legend --no-pager --no-ask-password --help --version'
    local drive='--qmp= --postcopy --postcopy= --multifd= --resume --security= --socket-owner= --endpoint= --expire= --resume-timeout='
    local -A verbs=(
        [list]=''
        [status]=''
        [show]='--property= --value'
        [watch]=''
        [wait]='--timeout='
        [cancel]='--force --qmp='
        [limit]=''
        [forget]=''
        [receive]="$drive --socket="
        [send]="$drive --socket= --bandwidth= --downtime-limit= --ticket-file="
        [migrate]="$drive --dst-qmp= --ssh --bandwidth= --downtime-limit="
        [check]=''
        [metrics]='--output='
    )
    COMPREPLY=()
    compopt +o default 2>/dev/null

    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ -n ${COMP_WORDS[i]} && -v verbs["${COMP_WORDS[i]}"] ]]; then
            verb=${COMP_WORDS[i]}
            break
        fi
    done

    # "--json=sh" comes as three words.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $prev in
        --json) mapfile -t COMPREPLY < <(compgen -W 'short pretty off' -- "$cur") ;;
        --postcopy) mapfile -t COMPREPLY < <(compgen -W 'auto' -- "$cur") ;;
        --security) mapfile -t COMPREPLY < <(compgen -W 'tls plain' -- "$cur") ;;
        --socket-owner) mapfile -t COMPREPLY < <(compgen -u -- "$cur") ;;
        --host | -H) mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur") ;;
        --qmp | --dst-qmp | --socket | --ticket-file | --output | -o)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            ;;
        --property | -p)
            mapfile -t COMPREPLY < <(compgen -W 'Id Vm Role Security OwnerUid Sockets StartedUsec State Result ErrorName
                ErrorMessage Peer HelperUnit FinishedUsec BandwidthLimit BytesSent BytesReceived Rate Channels
                RoundTripUsec Reconnects Progress' -- "$cur")
            ;;
        --address | --multifd | --endpoint | --expire | --resume-timeout | --timeout | --bandwidth | --downtime-limit) ;;
        *)
            if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$common ${verb:+${verbs[$verb]}}" -- "$cur")
                [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
                return
            fi
            case $verb in
                '') mapfile -t COMPREPLY < <(compgen -W "${!verbs[*]}" -- "$cur") ;;
                status | show | watch | wait | cancel | limit)
                    mapfile -t COMPREPLY < <(compgen -W "$(__vmferryctl_listed migrations)" -- "$cur")
                    ;;
                forget) mapfile -t COMPREPLY < <(compgen -W "$(__vmferryctl_listed finished)" -- "$cur") ;;
                migrate | check) mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur") ;;
            esac
            ;;
    esac
}

complete -F _vmferryctl vmferryctl
