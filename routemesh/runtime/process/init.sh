#!/bin/sh
# PID 1 of a task's pid namespace: starts the command, reaps orphans, forwards signals, records how the command ended.
#
#   unshare --mount --uts --ipc --pid setsid --fork sh init.sh DIRECTORY HOSTNAME COMMAND [ARGUMENT...]
#
# stdout is the pipe on which launch.sh answers the daemon, stderr the pipe of the task's output (or /dev/null), open in both
# directions: as long as we hold it no task gets a SIGPIPE because nobody reads. The daemon may die at any moment:
# everything that its successor needs is in DIRECTORY (init: who we are; exit: the command's exit status).
# Sleeps in wait(2) as long as the command runs.

main() {
    directory=$1 hostname=$2
    shift 2
    exec 3>&1 1>&2

    # This is still the host's /proc, so it shows us as the host sees us.
    read -r boot </proc/sys/kernel/random/boot_id
    read -r stat </proc/self/stat
    printf '%s\n' "$boot" "$stat" >"$directory/init" || exit

    mount -t proc proc /proc || exit
    printf '%s' "$hostname" >/proc/sys/kernel/hostname || exit

    forward_signals
    # A session of its own: a command that signals its process group must not reach us, who would send it back.
    # A shell lets its background commands ignore SIGINT and SIGQUIT: env gives them their default again.
    output=$directory/output
    [ -p "$output" ] || output=/dev/null
    setsid env --default-signal=INT,QUIT /bin/sh "${0%/*}/launch.sh" "$directory/environment" "$@" >"$output" 2>&1 &
    # The daemon reads the pipe to its end. What the shell itself would say (Killed) is not the task's output, which descriptor 1
    # goes on holding.
    exec 3>&- 2>/dev/null

    await_command
    # One write; nobody reads the file before we have ended.
    echo "$code" >"$directory/exit"
}

# All but KILL, STOP, CHLD and the two that glibc keeps for itself. The kernel drops what PID 1 has no handler for.
forward_signals() {
    number=1
    while [ "$number" -le 64 ]; do
        case $number in
        9 | 17 | 19 | 32 | 33) ;;
        # The number is put in now, $! when the signal comes.
        *) trap "signalled=yes; kill -$number \$!" "$number" ;;
        esac
        number=$((number + 1))
    done
}

# A signal interrupts wait, or comes when it has just returned: then ask again, the shell remembers the status.
await_command() {
    signalled=yes
    while [ "$signalled" ]; do
        signalled=
        wait $!
        code=$?
    done
}

# Read to here before anything runs: an upgrade may replace this file meanwhile.
main "$@"; exit
