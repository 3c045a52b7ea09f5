//! How little memory a program holds that waits: what the allocator keeps, and what stays mapped of the program.

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

/// Heaps that threads share: the first thread has one, all others together have another.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

/// Has the threads of a program that does little share their heaps, where the allocator of glibc would give each its own
/// with what is left over in it. To be called once, at the start of a program.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a setting of the system's allocator, for which there is no safe interface")]
        // SAFETY: a known parameter with a number in its range; it may be called at any time.
        let done = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, HEAPS) };
        if done == 0 {
            tracing::debug!("The allocator keeps its own number of heaps");
        }
    }
}

/// Lets go of memory that is not in use: free blocks that the allocator keeps, and the program's code and constants.
///
/// The latter are pages of files that nobody can have changed. The kernel keeps them for as long as it has room; what is
/// needed of them is mapped again when it is needed, sixteen pages at a time and without the disk. A daemon that has
/// started needs little of what its start has needed, and without this all of that counts as in use until the machine has
/// no memory left. Takes some hundred microseconds, what is mapped again included. A debugger's breakpoints in such pages
/// are lost. Does nothing where the system has no such interfaces.
pub fn let_go_of_idle_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
    {
        #[expect(unsafe_code, reason = "asks the system's allocator, for which there is no safe interface")]
        // SAFETY: only gives back what no allocation uses; it may be called at any time, from any thread.
        unsafe {
            nix::libc::malloc_trim(0);
        }
        program::let_go();
    }
}

/// The mapped files of this process.
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod program {
    use std::ffi::c_void;
    use std::ops::Range;

    use nix::libc;

    /// Unmaps the pages of everything that is mapped from a program or library and cannot be written to.
    pub(super) fn let_go() {
        for range in read_only_segments() {
            #[expect(
                unsafe_code,
                reason = "advice to the kernel on mapped files, for which there is no safe interface"
            )]
            // SAFETY: the range is whole pages inside one segment of a loaded object without the right to write. Its
            // pages are those of the file: linkers for 64 bits refuse to make relocations in such a segment. So the
            // kernel maps the same content again when it is next touched, this code included.
            let done =
                unsafe { libc::madvise(range.start as *mut c_void, range.end - range.start, libc::MADV_DONTNEED) };
            if done != 0 {
                // Such as where everything is locked into memory. It stays as it was.
                tracing::trace!(error = %std::io::Error::last_os_error(), "A part of the program stays mapped");
            }
        }
    }

    /// Whole pages in segments of all loaded objects that are mapped without the right to write from the start. What
    /// becomes read-only after relocation lies in others.
    pub(super) fn read_only_segments() -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        #[expect(unsafe_code, reason = "asks the loader for its objects, for which there is no safe interface")]
        // SAFETY: the callback has the type that is asked for, gets the pointer that is given here, and that outlives
        // the call.
        unsafe {
            libc::dl_iterate_phdr(Some(add_segments), (&raw mut found).cast());
        }
        found
    }

    /// Adds the segments of one object; called by the loader for each.
    #[expect(unsafe_code, reason = "the loader's callback reads the loader's own tables")]
    unsafe extern "C" fn add_segments(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> libc::c_int {
        // SAFETY: `found` is what `read_only_segments` gave, used by nobody else meanwhile.
        let found = unsafe { &mut *found.cast::<Vec<Range<usize>>>() };
        // SAFETY: the loader gives a valid description for the time of the call.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the loader says where the object's headers are and how many.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        found.extend(headers.iter().filter(|header| is_read_only(header)).filter_map(|header| pages(info, header)));
        0
    }

    fn is_read_only(header: &libc::Elf64_Phdr) -> bool {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
    }

    /// The whole pages of a segment, if there are any: a page at its end might hold what is not of the file.
    fn pages(info: &libc::dl_phdr_info, header: &libc::Elf64_Phdr) -> Option<Range<usize>> {
        let start = usize::try_from(info.dlpi_addr.checked_add(header.p_vaddr)?).ok()?;
        let end = start.checked_add(usize::try_from(header.p_filesz).ok()?)?;
        let page = page_bytes()?;
        let (start, end) = (start.checked_next_multiple_of(page)?, end / page * page);
        (start < end).then_some(start..end)
    }

    fn page_bytes() -> Option<usize> {
        #[expect(unsafe_code, reason = "a question to the C library")]
        // SAFETY: it only answers.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    }

    /// Where the lines of `/proc/self/smaps` with this key stand: the mapping's range, its rights, and the number.
    #[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
    fn mappings(key: &str) -> Vec<(std::ops::Range<usize>, String, usize)> {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut found = Vec::new();
        let mut current = (0..0, String::new());
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words[0] == key {
                found.push((current.0.clone(), current.1.clone(), words[1].parse().unwrap()));
            } else if let Some((start, end)) = words[0].split_once('-') {
                let number = |text| usize::from_str_radix(text, 16).unwrap();
                current = (number(start)..number(end), words[1].to_owned());
            }
        }
        found
    }

    #[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
    #[test]
    fn only_what_nobody_can_have_changed_is_let_go() {
        let segments = program::read_only_segments();
        assert!(!segments.is_empty());
        let here = only_what_nobody_can_have_changed_is_let_go as fn() as usize;
        assert!(segments.iter().any(|segment| segment.contains(&here)), "this code is not in {segments:x?}");
        // What this process has changed is not the file's any more, and counted as anonymous.
        for (range, rights, changed_kib) in mappings("Anonymous:") {
            let is_in = segments.iter().any(|segment| segment.start < range.end && range.start < segment.end);
            assert!(!is_in || (rights.as_bytes()[1] == b'-' && changed_kib == 0), "{range:x?} {rights} {changed_kib}");
        }
    }

    #[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
    #[test]
    fn a_program_goes_on_without_its_pages() {
        // Larger than the allocator keeps at its end, and in the middle of its heap.
        let blocks: Vec<Vec<u8>> = (0..4_096_u16).map(|number| vec![number.to_le_bytes()[0]; 1_024]).collect();
        let kept: Vec<&Vec<u8>> = blocks.iter().step_by(7).collect();
        let mapped_kib = || -> usize {
            let own = program::read_only_segments();
            let is_own = |range: &std::ops::Range<usize>| own.iter().any(|segment| range.contains(&segment.start));
            mappings("Rss:").iter().filter(|(range, ..)| is_own(range)).map(|(.., kib)| kib).sum()
        };
        // Other tests run in this process, and have pages mapped again meanwhile.
        let falls = || {
            let before = mapped_kib();
            let_go_of_idle_memory();
            mapped_kib() < before
        };
        assert!((0..100).any(|_| falls()), "as much as before is mapped");
        assert!(kept.iter().all(|block| block.iter().all(|byte| *byte == block[0])));
        assert_eq!(format!("{:?}", [1.5, 2.5]), "[1.5, 2.5]");
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
