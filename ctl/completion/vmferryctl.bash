# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for vmferryctl(1)

# Names of VMs are chosen by other users, and by other hosts: nothing that evaluates words, such as compgen -W or
# [[ -v … ]], may ever see one, nor what stands on the command line.

# What 'list' says, of the broker that the command line names so far: fills 'listed' with ids, or ids and own VMs.
__vmferryctl_listed() {
    local -a broker=() lines=()
    local line typed=${COMP_LINE:0:COMP_POINT} owner=$EUID
    listed=()
    [[ " $typed" != *' --user '* ]] || broker+=(--user)
    # Taken from the line, for bash breaks words at '=', ':' and '@'. Only what is plain is used: a TAB starts nothing
    # that the user has not confirmed, and a D-Bus address can name a program.
    if [[ $typed =~ \ --address[=\ ]+([^ ]+) ]]; then
        [[ ${BASH_REMATCH[1]} =~ ^unix:(path|abstract)=[A-Za-z0-9_./%@+-]+$ ]] || return 1
        broker=("--address=${BASH_REMATCH[0]}")
    fi
    if [[ $typed =~ \ (-H\ *|--host[=\ ]+)([^ ]+) ]]; then
        [[ ${BASH_REMATCH[2]} =~ ^[A-Za-z0-9_][A-Za-z0-9_.@:%-]*$ ]] || return 1
        broker+=(-H "${BASH_REMATCH[0]}")
        owner='' # who the user is there is not known here
    fi
    mapfile -t lines < <(vmferryctl --no-legend --no-pager --no-ask-password "${broker[@]}" list 2>/dev/null </dev/null)
    for line in "${lines[@]}"; do
        [[ $line =~ ^([0-9a-f]{16})\ +(incoming|outgoing)\ +([a-z]+)\ +(.*[^ ])\ +([0-9]+)$ ]] || continue
        [[ $1 != finished || ${BASH_REMATCH[3]} == finished ]] || continue
        listed+=("${BASH_REMATCH[1]}")
        [[ $1 == finished || ${owner:-${BASH_REMATCH[5]}} != "${BASH_REMATCH[5]}" ]] || listed+=("${BASH_REMATCH[4]}")
    done
}

# Offers those of 'listed' that begin with what is typed, quoted for the shell. One that looks like an option is left
# out.
__vmferryctl_offer() {
    local word quoted bare=${cur//\\\\/$'\1'}
    bare=${bare//\\/}
    bare=${bare//$'\1'/\\} # what is typed, without its backslashes
    for word in "${listed[@]}"; do
        [[ -n $word && $word != -* ]] || continue
        printf -v quoted %q "$word"
        [[ $quoted == "\$'"* ]] || { quoted=${quoted//:/\\:} && quoted=${quoted//=/\\=}; }
        [[ $word != "$bare"* && $quoted != "$cur"* ]] || COMPREPLY+=("$quoted")
    done
}

_vmferryctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i word
    local -a listed=()
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

    for ((i = 1; i < COMP_CWORD && ${#verb} == 0; i++)); do
        for word in "${!verbs[@]}"; do
            [[ ${COMP_WORDS[i]} != "$word" ]] || verb=$word
        done
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
                status | show | watch | wait | cancel | limit) __vmferryctl_listed migrations && __vmferryctl_offer ;;
                forget) __vmferryctl_listed finished && __vmferryctl_offer ;;
                migrate | check) mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur") ;;
            esac
            ;;
    esac
}

complete -F _vmferryctl vmferryctl
