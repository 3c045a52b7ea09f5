//! How deep the calls of a thread may go.

/// Bytes of the stack of each thread. Reserved, not used: a page counts once it was touched.
///
/// A message's header may hold tables in tables (AMQP 0-9-1 section 4.2.5.5), and the library that reads it calls itself
/// for each. As many as fit into a frame of 16 KiB, about 2,700, need more than the usual 2 MiB; a program that runs out of
/// its stack is gone at once. `muster-bus` has the test. A build without optimisation needs several times as much.
pub const STACK_BYTES: usize = if cfg!(debug_assertions) { 64 } else { 16 } * 1024 * 1024;

/// What the standard library goes by for threads that do not say how much they want.
const VARIABLE: &str = "RUST_MIN_STACK";

/// Gives every thread that is started from now on a stack of [`STACK_BYTES`], also those of libraries. To be called first
/// of all in `main`, where there is one thread.
pub fn deepen_stacks() {
    #[expect(
        unsafe_code,
        clippy::disallowed_methods,
        reason = "the threads of libraries go by an environment variable, and by nothing else"
    )]
    // SAFETY: the only thread there is calls this before it has done anything, so nobody reads the environment meanwhile.
    unsafe {
        std::env::set_var(VARIABLE, STACK_BYTES.to_string());
    }
}
