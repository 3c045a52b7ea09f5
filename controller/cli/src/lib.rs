//! muster, the operator's command line.
