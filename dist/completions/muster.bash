# Proposals for `muster`, which it makes itself. Goes to /usr/share/bash-completion/completions/muster.
source <(COMPLETE=bash muster)
