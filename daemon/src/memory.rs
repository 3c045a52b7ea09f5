//! How the allocator of the system treats large blocks.

/// From so many bytes on a block is a mapping of its own.
#[cfg(target_env = "gnu")]
const MAPPED_FROM_BYTES: i32 = 256 * 1024;

/// Has large blocks come from the kernel and go back to it, always.
///
/// The allocator of glibc begins like that, and stops with the first large block that is freed: from then on it takes
/// such blocks from its heap and fills them with zeros. A buffer of a megabyte of which ten kilobytes are ever used
/// then holds a megabyte of memory, for as long as the program lives. Each connection has two of them, so an agent that
/// had lost its broker once was two megabytes larger. To be called once, at the start of a program. Other allocators do
/// as they think best.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a setting of the system's allocator, for which there is no safe interface")]
        // SAFETY: a known parameter with a number in its range; it may be called at any time.
        let done = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES) };
        if done == 0 {
            tracing::debug!("The allocator keeps its own threshold for large blocks");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    }

    #[test]
    fn a_large_block_costs_what_is_used_of_it_also_the_second_time() {
        const BLOCKS: usize = 64;
        const BYTES: usize = 1024 * 1024;
        return_large_blocks();
        let before = resident_bytes();
        for round in 0..4 {
            let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![0; BYTES]).collect();
            let grown = resident_bytes().saturating_sub(before);
            assert!(grown < BLOCKS * BYTES / 2, "round {round}: {grown} bytes for blocks that nobody uses");
            assert!(blocks.iter().all(|block| block.len() == BYTES));
        }
    }
}
