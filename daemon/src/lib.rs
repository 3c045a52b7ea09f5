//! What every long-running program needs: tasks and shutdown, logging, config loading, clock, back-off. No domain.
