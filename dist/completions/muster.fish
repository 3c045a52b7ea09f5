# Proposals for `muster`, which it makes itself. Goes to /usr/share/fish/vendor_completions.d/muster.fish.
COMPLETE=fish muster | source
