# shellcheck shell=bash
# Sourced by scripts that start nodes: binds the life of what they start to their own.
#
# A script that is ended by `kill -9` cannot end anybody any more. The kernel can, and a node that it kills takes its programs along.

# Becomes a program that the kernel kills when the script ends, however that ends. Only in the background, and not from a subshell:
#
#   bound PROGRAM ARGUMENTS... &
bound() {
  # The kernel misses nobody who died before the bond was made, so it is made first and the script is looked for afterwards.
  # shellcheck disable=SC2016 # The shell between them says who its parent is.
  exec setpriv --pdeathsig KILL bash -c '[ "$PPID" = "$0" ] || exit 1; exec "$@"' "$$" "$@"
}
