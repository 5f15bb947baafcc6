#!/bin/sh
# Becomes a task's command: launch.sh ENVIRONMENT COMMAND [ARGUMENT...], where ENVIRONMENT is a file of export lines.
#
# Descriptor 3 is a pipe to the daemon: "exec" says that we have come to the last step, end of file that it is done,
# "refused" before it that the command can't be executed (the shell has said why on stderr).

trap 'echo refused >&3' EXIT
# bash leaves without the trap when exec fails, unless told; other shells have no shopt.
shopt -s execfail 2>/dev/null
unset PWD
. "$1"
shift
echo exec >&3
# What a redirection sets aside is close-on-exec, so the pipe is closed by a successful exec and comes back after a failed one.
{ exec "$@"; } 3>&-
