//! What is on a simulated disk: as the process sees it, and as it would be found after the host has crashed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _};

use super::super::{DirectoryEntry, FileIdentity, FileKind, Metadata, Open};
use super::ENOSPC;

const ROOT: u64 = 1;

/// After this many unsynced changes of a file the oldest count as written: the kernel does not wait for ever either.
const UNSYNCED_MAX: usize = 4_096;

/// Files that nobody can reach any more are looked for when there are so many more than the last time.
const INODES_BETWEEN_LOOKS: usize = 64;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLength(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let offset = usize::try_from(*offset).expect("a file in memory");
                if content.len() < offset + bytes.len() {
                    content.resize(offset + bytes.len(), 0);
                }
                content[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLength(length) => content.resize(usize::try_from(*length).expect("a file in memory"), 0),
        }
    }
}

#[derive(Debug, Default)]
struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Bytes of room it has beyond its content.
    allocated: u64,
    locked_by: Option<u64>,
    handles: BTreeSet<u64>,
    mode: u32,
}

#[derive(Debug, Default)]
struct Directory {
    entries: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
}

#[derive(Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

/// A name: the directory it is in, and what it is.
type Place = (u64, OsString);

#[derive(Debug, Clone)]
enum NameChange {
    Link(Place, u64),
    Unlink(Place),
    Rename { from: Place, to: Place, inode: u64 },
}

impl NameChange {
    fn touches(&self, directory: u64) -> bool {
        match self {
            Self::Link((it, _), _) | Self::Unlink((it, _)) => *it == directory,
            Self::Rename { from, to, .. } => from.0 == directory || to.0 == directory,
        }
    }

    fn inode(&self) -> Option<u64> {
        match self {
            Self::Link(_, inode) | Self::Rename { inode, .. } => Some(*inode),
            Self::Unlink(_) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Platter {
    inodes: BTreeMap<u64, Node>,
    /// In the order they happened.
    unsynced_names: Vec<NameChange>,
    next_inode: u64,
    next_handle: u64,
    inodes_at_last_look: usize,
    pub(super) room: Option<u64>,
}

impl Default for Platter {
    fn default() -> Self {
        Self {
            inodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]),
            unsynced_names: Vec::new(),
            next_inode: ROOT + 1,
            next_handle: 1,
            inodes_at_last_look: 0,
            room: None,
        }
    }
}

fn error(kind: io::ErrorKind) -> io::Error {
    io::Error::from(kind)
}

impl Platter {
    fn file(&mut self, inode: u64) -> io::Result<&mut File> {
        match self.inodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(error(io::ErrorKind::IsADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    fn directory(&self, inode: u64) -> io::Result<&Directory> {
        match self.inodes.get(&inode) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(error(io::ErrorKind::NotADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    fn names(path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => names.push(name.to_owned()),
                Component::ParentDir | Component::Prefix(_) => return Err(error(io::ErrorKind::InvalidInput)),
            }
        }
        Ok(names)
    }

    fn walk(&self, names: &[OsString]) -> io::Result<u64> {
        names.iter().try_fold(ROOT, |at, name| {
            self.directory(at)?.entries.get(name).copied().ok_or_else(|| error(io::ErrorKind::NotFound))
        })
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.walk(&Self::names(path)?)
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        let mut names = Self::names(path)?;
        let name = names.pop().ok_or_else(|| error(io::ErrorKind::IsADirectory))?;
        let directory = self.walk(&names)?;
        self.directory(directory)?;
        Ok((directory, name))
    }

    fn at(&self, (directory, name): &Place) -> io::Result<Option<u64>> {
        Ok(self.directory(*directory)?.entries.get(name).copied())
    }

    fn change_name(&mut self, change: NameChange) {
        Self::apply(&mut self.inodes, &change, |directory| &mut directory.entries);
        self.unsynced_names.push(change);
        self.forget_unreachable();
    }

    fn apply(
        inodes: &mut BTreeMap<u64, Node>,
        change: &NameChange,
        which: impl Fn(&mut Directory) -> &mut BTreeMap<OsString, u64>,
    ) {
        let mut set = |(directory, name): &Place, inode: Option<u64>| {
            // A directory that is gone takes its names along.
            let Some(Node::Directory(directory)) = inodes.get_mut(directory) else { return };
            match inode {
                Some(inode) => drop(which(directory).insert(name.clone(), inode)),
                None => drop(which(directory).remove(name)),
            }
        };
        match change {
            NameChange::Link(place, inode) => set(place, Some(*inode)),
            NameChange::Unlink(place) => set(place, None),
            NameChange::Rename { from, to, inode } => {
                set(from, None);
                set(to, Some(*inode));
            }
        }
    }

    fn make(&mut self, place: Place, node: Node) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, node);
        self.change_name(NameChange::Link(place, inode));
        inode
    }

    /// Gives the file and the number of the new handle.
    pub(super) fn open(&mut self, path: &Path, how: Open) -> io::Result<(u64, u64)> {
        let place = self.place(path)?;
        let handle = self.next_handle;
        let inode = match (self.at(&place)?, how) {
            (Some(_), Open::New { .. }) => return Err(error(io::ErrorKind::AlreadyExists)),
            (Some(inode), _) => inode,
            (None, Open::Read) => return Err(error(io::ErrorKind::NotFound)),
            (None, Open::Append { mode } | Open::New { mode }) => {
                // Held before the name is there, so that it is never taken for a file nobody can reach.
                let file = File { mode, handles: BTreeSet::from([handle]), ..File::default() };
                self.make(place, Node::File(file))
            }
        };
        self.next_handle += 1;
        self.file(inode)?.handles.insert(handle);
        Ok((inode, handle))
    }

    pub(super) fn close(&mut self, inode: u64, handle: u64) {
        if let Ok(file) = self.file(inode) {
            file.handles.remove(&handle);
            file.locked_by = file.locked_by.filter(|by| *by != handle);
        }
    }

    pub(super) fn close_all(&mut self) {
        for node in self.inodes.values_mut() {
            if let Node::File(file) = node {
                file.handles.clear();
                file.locked_by = None;
            }
        }
    }

    pub(super) fn try_lock(&mut self, inode: u64, handle: u64) -> io::Result<bool> {
        let file = self.file(inode)?;
        Ok(*file.locked_by.get_or_insert(handle) == handle)
    }

    fn free(&self) -> u64 {
        self.room.map_or(u64::MAX, |room| room.saturating_sub(self.used()))
    }

    pub(super) fn used(&self) -> u64 {
        let size = |node: &Node| match node {
            Node::File(file) => (file.content.len() as u64).max(file.allocated),
            Node::Directory(_) => 0,
        };
        // What is removed takes no room, although it may be there again after a crash of the host.
        let named = self.reachable([], |directory| vec![&directory.entries]);
        let is_there = |(inode, node): &(&u64, &Node)| {
            named.contains(inode) || matches!(node, Node::File(file) if !file.handles.is_empty())
        };
        self.inodes.iter().filter(is_there).map(|(_, node)| size(node)).sum()
    }

    fn reachable(
        &self,
        also: impl IntoIterator<Item = u64>,
        names: impl Fn(&Directory) -> Vec<&BTreeMap<OsString, u64>>,
    ) -> BTreeSet<u64> {
        let mut reachable = BTreeSet::new();
        let mut to_visit: Vec<u64> = also.into_iter().chain([ROOT]).collect();
        while let Some(inode) = to_visit.pop() {
            if reachable.insert(inode)
                && let Some(Node::Directory(directory)) = self.inodes.get(&inode)
            {
                to_visit.extend(names(directory).into_iter().flat_map(BTreeMap::values));
            }
        }
        reachable
    }

    pub(super) fn append(&mut self, inode: u64, bytes: &[u8]) -> io::Result<()> {
        let free = usize::try_from(self.free()).unwrap_or(usize::MAX);
        let file = self.file(inode)?;
        let within = usize::try_from(file.allocated).unwrap_or(usize::MAX).saturating_sub(file.content.len());
        let part = &bytes[..bytes.len().min(free.saturating_add(within))];
        let change = Change::Write { offset: file.content.len() as u64, bytes: part.to_vec() };
        file.change(change);
        if part.len() < bytes.len() { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }

    pub(super) fn read_at(&mut self, inode: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = &self.file(inode)?.content;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let length = buffer.len().min(content.len() - from);
        buffer[..length].copy_from_slice(&content[from..from + length]);
        Ok(length)
    }

    pub(super) fn set_length(&mut self, inode: u64, length: u64) -> io::Result<()> {
        self.file(inode)?.change(Change::SetLength(length));
        Ok(())
    }

    pub(super) fn allocate(&mut self, inode: u64, length: u64) -> io::Result<()> {
        let free = self.free();
        let file = self.file(inode)?;
        let missing = length.saturating_sub((file.content.len() as u64).max(file.allocated));
        if missing > free {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        file.allocated = file.allocated.max(length);
        if (file.content.len() as u64) < length {
            file.change(Change::SetLength(length));
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        let file = self.file(inode)?;
        for change in std::mem::take(&mut file.unsynced) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    /// The kernel could not write, says so once, and takes what it has for written.
    pub(super) fn fail_sync(&mut self, inode: u64, random: &mut SmallRng) -> io::Result<()> {
        let file = self.file(inode)?;
        for change in std::mem::take(&mut file.unsynced) {
            if random.random_bool(0.5) {
                change.apply(&mut file.durable);
            }
        }
        Ok(())
    }

    pub(super) fn metadata(&self, inode: u64) -> io::Result<Metadata> {
        let (kind, length, mode) = match self.inodes.get(&inode) {
            Some(Node::File(file)) => (FileKind::File, file.content.len() as u64, file.mode),
            Some(Node::Directory(_)) => (FileKind::Directory, 0, 0o700),
            None => return Err(error(io::ErrorKind::NotFound)),
        };
        Ok(Metadata { kind, length, owner: 0, mode, identity: FileIdentity { device: 1, inode } })
    }

    pub(super) fn metadata_of(&self, path: &Path) -> io::Result<Metadata> {
        self.metadata(self.find(path)?)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let inode = self.at(&from)?.ok_or_else(|| error(io::ErrorKind::NotFound))?;
        if let Some(replaced) = self.at(&to)? {
            let is_directory = |inode| self.directory(inode).is_ok();
            match (is_directory(inode), is_directory(replaced)) {
                (false, true) => return Err(error(io::ErrorKind::IsADirectory)),
                (true, false) => return Err(error(io::ErrorKind::NotADirectory)),
                (true, true) if !self.directory(replaced)?.entries.is_empty() => {
                    return Err(error(io::ErrorKind::DirectoryNotEmpty));
                }
                _ => {}
            }
        }
        if from != to {
            self.change_name(NameChange::Rename { from, to, inode });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, directory: bool) -> io::Result<()> {
        let place = self.place(path)?;
        let inode = self.at(&place)?.ok_or_else(|| error(io::ErrorKind::NotFound))?;
        match (self.directory(inode).is_ok(), directory) {
            (true, false) => Err(error(io::ErrorKind::IsADirectory)),
            (false, true) => Err(error(io::ErrorKind::NotADirectory)),
            _ => {
                self.change_name(NameChange::Unlink(place));
                Ok(())
            }
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let entries = &self.directory(self.find(path)?)?.entries;
        let entry = |(name, inode): (&OsString, &u64)| {
            Ok(DirectoryEntry { name: name.clone(), kind: self.metadata(*inode)?.kind })
        };
        entries.iter().map(entry).collect()
    }

    pub(super) fn make_directory(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in Self::names(path)? {
            let place = (at, name);
            at = match self.at(&place)? {
                Some(inode) => {
                    self.directory(inode)?;
                    inode
                }
                None => self.make(place, Node::Directory(Directory::default())),
            };
        }
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.find(path)?;
        self.directory(directory)?;
        let (synced, left) = std::mem::take(&mut self.unsynced_names)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.touches(directory));
        self.unsynced_names = left;
        for change in synced {
            Self::apply(&mut self.inodes, &change, |directory| &mut directory.durable);
        }
        Ok(())
    }

    /// What is left once the host is up again.
    pub(super) fn lose(&mut self, random: &mut SmallRng) {
        // All names, none, a beginning or any of them: a journal on the disk keeps a beginning, others need not.
        let changes = std::mem::take(&mut self.unsynced_names);
        let style = random.random_range(0..4);
        let beginning = random.random_range(0..=changes.len());
        for (index, change) in changes.iter().enumerate() {
            let is_kept = match style {
                0 => false,
                1 => true,
                2 => index < beginning,
                _ => random.random_bool(0.5),
            };
            if is_kept {
                Self::apply(&mut self.inodes, change, |directory| &mut directory.durable);
            }
        }
        for node in self.inodes.values_mut() {
            match node {
                Node::File(file) => file.lose(random),
                Node::Directory(directory) => directory.entries.clone_from(&directory.durable),
            }
        }
        self.forget_unreachable_now();
    }

    fn forget_unreachable(&mut self) {
        if self.inodes.len() > self.inodes_at_last_look.saturating_mul(2) + INODES_BETWEEN_LOOKS {
            self.forget_unreachable_now();
        }
    }

    fn forget_unreachable_now(&mut self) {
        let unsynced: Vec<u64> = self.unsynced_names.iter().filter_map(NameChange::inode).collect();
        let reachable = self.reachable(unsynced, |directory| vec![&directory.entries, &directory.durable]);
        self.inodes.retain(|inode, node| {
            let is_open = matches!(node, Node::File(file) if !file.handles.is_empty());
            is_open || reachable.contains(inode)
        });
        self.inodes_at_last_look = self.inodes.len();
    }

    pub(super) fn content(&mut self, path: &Path) -> io::Result<&[u8]> {
        let inode = self.find(path)?;
        self.file(inode).map(|file| &*file.content)
    }

    pub(super) fn put(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let place = self.place(path)?;
        let inode = match self.at(&place)? {
            Some(inode) => inode,
            None => {
                let inode = self.make(place.clone(), Node::File(File { mode: 0o600, ..File::default() }));
                let link = self.unsynced_names.pop();
                if let Some(link) = link {
                    Self::apply(&mut self.inodes, &link, |directory| &mut directory.durable);
                }
                inode
            }
        };
        let file = self.file(inode)?;
        file.content = content.to_vec();
        file.durable = content.to_vec();
        file.unsynced.clear();
        Ok(())
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut to_visit = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, inode)) = to_visit.pop() {
            match self.inodes.get(&inode) {
                Some(Node::Directory(directory)) => {
                    to_visit.extend(directory.entries.iter().map(|(name, inode)| (path.join(name), *inode)));
                }
                Some(Node::File(_)) => paths.push(path),
                None => {}
            }
        }
        paths.sort();
        paths
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.unsynced.push(change);
        if self.unsynced.len() > UNSYNCED_MAX {
            let oldest = self.unsynced.remove(0);
            oldest.apply(&mut self.durable);
        }
    }

    fn lose(&mut self, random: &mut SmallRng) {
        let changes = std::mem::take(&mut self.unsynced);
        let kept = random.random_range(0..=changes.len());
        for change in &changes[..kept] {
            change.apply(&mut self.durable);
        }
        // The next one is torn; where it should have been may be zeros.
        if let Some(Change::Write { offset, bytes }) = changes.get(kept) {
            let part = (random.next_u64() as usize) % (bytes.len() + 1);
            Change::Write { offset: *offset, bytes: bytes[..part].to_vec() }.apply(&mut self.durable);
            if part > 0 && random.random_ratio(1, 4) {
                self.durable.resize(self.durable.len().max(usize::try_from(*offset).unwrap_or(0) + bytes.len()), 0);
            }
        }
        self.content.clone_from(&self.durable);
        self.allocated = self.allocated.min(self.content.len() as u64);
    }
}
