//! What a process did to its files, from strace's record.

use std::collections::{BTreeMap, HashMap};

/// A file or folder; it outlives its names. 0 is the folder that all of this is about.
pub(crate) type Inode = usize;

pub(crate) const ROOT: Inode = 0;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A name appears, or stands for something else from now on.
    Name { folder: Inode, name: String, inode: Inode },
    /// A name goes.
    Unname { folder: Inode, name: String },
    /// A name is exchanged for another in the same folder, in one step.
    Rename { folder: Inode, from: String, to: String, inode: Inode },
    /// Bytes are written.
    Write { inode: Inode, at: u64, bytes: Vec<u8> },
    /// A file is cut or stretched.
    Length { inode: Inode, length: u64 },
    /// A file's content, or a folder's names, are put on stable storage.
    Sync { inode: Inode },
    /// The process said something.
    Say { text: String },
}

impl Change {
    /// What it changes.
    pub(crate) fn inode(&self) -> Option<Inode> {
        match self {
            Self::Name { folder, .. } | Self::Unname { folder, .. } | Self::Rename { folder, .. } => Some(*folder),
            Self::Write { inode, .. } | Self::Length { inode, .. } | Self::Sync { inode } => Some(*inode),
            Self::Say { .. } => None,
        }
    }

    /// Whether it is about more than the bytes of a file.
    pub(crate) fn is_metadata(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::Unname { .. } | Self::Rename { .. } | Self::Length { .. })
    }
}

/// A change between the begin of its system call and the end, as lines of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) change: Change,
}

/// Everything that happened, in the order in which it ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) events: Vec<Event>,
    /// Number of lines.
    pub(crate) lines: usize,
    /// Which inodes are folders.
    pub(crate) folders: Vec<bool>,
}

/// System calls to record: all that changes files, and what is needed to know which file and where.
pub(crate) const CALLS: &str = "open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,write,pwrite64,writev,pwritev,pwritev2,read,\
    lseek,ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,\
    symlinkat,fsync,fdatasync,sync,syncfs,mmap,copy_file_range,sendfile,splice,io_uring_setup";

struct Open {
    inode: Inode,
    position: u64,
    append: bool,
}

#[derive(Default)]
struct Reader {
    record: Record,
    /// Names as the process sees them.
    names: HashMap<Inode, BTreeMap<String, Inode>>,
    lengths: HashMap<Inode, u64>,
    open: HashMap<u64, Open>,
    root: String,
}

/// Reads a record; `root` is the folder whose files count.
pub(crate) fn read(text: &str, root: &str) -> Record {
    let mut reader = Reader { root: root.into(), ..Reader::default() };
    reader.new_inode(true);
    let mut begun: HashMap<&str, (usize, String)> = HashMap::new();
    for (line, text) in text.lines().enumerate() {
        reader.record.lines = line + 1;
        let Some((process, call)) = text.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(process, (line, first.into()));
        } else if let Some(rest) = call.strip_prefix("<... ") {
            let rest = rest.split_once(" resumed>").map_or("", |(_, rest)| rest);
            if let Some((begin, first)) = begun.remove(process) {
                reader.call(begin, line, &format!("{first}{rest}"));
            }
        } else if !call.starts_with("+++") && !call.starts_with("---") {
            reader.call(line, line, call);
        }
    }
    reader.record
}

/// Arguments at the top level: none of the strings has a quote or comma in it, they are all in hexadecimal.
fn arguments(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[from..i].trim());
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts
}

/// A string of strace's `-xx`.
fn bytes(text: &str) -> Vec<u8> {
    assert!(!text.ends_with("..."), "strace cut a string off");
    let hex = text.trim_matches('"').as_bytes();
    let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.chunks_exact(4).map(|c| digit(c[2]) << 4 | digit(c[3])).collect()
}

fn path(text: &str) -> String {
    String::from_utf8(bytes(text)).expect("a path")
}

impl Reader {
    fn new_inode(&mut self, folder: bool) -> Inode {
        self.record.folders.push(folder);
        let inode = self.record.folders.len() - 1;
        if folder {
            self.names.insert(inode, BTreeMap::new());
        }
        inode
    }

    /// Folder and name of a path below the root; the root itself has no name.
    fn place(&self, path: &str) -> Option<(Inode, String)> {
        let below = path.strip_prefix(&self.root)?;
        let mut parts: Vec<&str> = below.split('/').filter(|p| !p.is_empty()).collect();
        let name = parts.pop().unwrap_or_default();
        let folder = parts.iter().try_fold(ROOT, |at, part| self.names.get(&at)?.get(*part).copied())?;
        Some((folder, name.into()))
    }

    /// The same for a path that may begin at an open folder.
    fn place_at(&self, folder: &str, path: &str) -> Option<(Inode, String)> {
        let open = folder.parse().ok().and_then(|fd: u64| self.open.get(&fd));
        match open.filter(|_| !path.starts_with('/')) {
            Some(open) => {
                assert!(!path.contains('/'), "not understood: {path} at {folder}");
                Some((open.inode, path.into()))
            }
            None => self.place(path),
        }
    }

    fn find(&self, (folder, name): &(Inode, String)) -> Option<Inode> {
        if name.is_empty() { Some(ROOT) } else { self.names.get(folder)?.get(name).copied() }
    }

    fn note(&mut self, begin: usize, end: usize, change: Change) {
        match &change {
            Change::Name { folder, name, inode } => {
                self.names.get_mut(folder).expect("a folder").insert(name.clone(), *inode);
            }
            Change::Unname { folder, name } => {
                self.names.get_mut(folder).expect("a folder").remove(name);
            }
            Change::Rename { folder, from, to, inode } => {
                let names = self.names.get_mut(folder).expect("a folder");
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Change::Write { inode, at, bytes } => {
                let length = self.lengths.entry(*inode).or_default();
                *length = (*length).max(at + bytes.len() as u64);
            }
            Change::Length { inode, length } => {
                self.lengths.insert(*inode, *length);
            }
            Change::Sync { .. } | Change::Say { .. } => {}
        }
        self.record.events.push(Event { begin, end, change });
    }

    fn call(&mut self, begin: usize, end: usize, text: &str) {
        let Some((name, rest)) = text.split_once('(') else { return };
        let Some((inside, result)) = rest.rsplit_once(" = ") else { return };
        let inside = inside.trim_end().strip_suffix(')').unwrap_or(inside);
        let Some(result) = result.split(' ').next().and_then(|r| r.parse::<u64>().ok()) else { return }; // it failed
        let args = arguments(inside);
        let number = |i: usize| args.get(i).and_then(|a| a.parse::<u64>().ok());
        match name {
            "openat" => self.opens(begin, end, self.place_at(args[0], &path(args[1])), args[2], result),
            "close" => drop(number(0).and_then(|fd| self.open.remove(&fd))),
            "fcntl" if args[1].starts_with("F_DUPFD") => self.duplicates(number(0), result),
            "dup" | "dup2" | "dup3" => self.duplicates(number(0), result),
            "write" if number(0) == Some(1) => {
                let text = String::from_utf8_lossy(&bytes(args[1])).trim().to_owned();
                self.note(begin, end, Change::Say { text });
            }
            "write" | "pwrite64" => {
                let Some(open) = number(0).and_then(|fd| self.open.get_mut(&fd)) else { return };
                let mut bytes = bytes(args[1]);
                bytes.truncate(usize::try_from(result).expect("a length"));
                let at = match number(3) {
                    Some(at) => at,
                    None => {
                        if open.append {
                            open.position = self.lengths.get(&open.inode).copied().unwrap_or(0);
                        }
                        open.position += result;
                        open.position - result
                    }
                };
                let inode = open.inode;
                self.note(begin, end, Change::Write { inode, at, bytes });
            }
            "read" => {
                if let Some(open) = number(0).and_then(|fd| self.open.get_mut(&fd)) {
                    open.position += result;
                }
            }
            "lseek" => {
                if let Some(open) = number(0).and_then(|fd| self.open.get_mut(&fd)) {
                    open.position = result;
                }
            }
            "ftruncate" => {
                let Some(inode) = number(0).and_then(|fd| self.open.get(&fd)).map(|o| o.inode) else { return };
                self.note(begin, end, Change::Length { inode, length: number(1).expect("a length") });
            }
            "fsync" | "fdatasync" => {
                let Some(inode) = number(0).and_then(|fd| self.open.get(&fd)).map(|o| o.inode) else { return };
                self.note(begin, end, Change::Sync { inode });
            }
            "mkdir" | "mkdirat" => {
                let Some((folder, name)) = self.place(&path(args[args.len() - 2])).filter(|(_, n)| !n.is_empty())
                else {
                    return;
                };
                let inode = self.new_inode(true);
                self.note(begin, end, Change::Name { folder, name, inode });
            }
            "unlinkat" => {
                let Some((folder, name)) = self.place_at(args[0], &path(args[1])) else { return };
                self.note(begin, end, Change::Unname { folder, name });
            }
            "unlink" | "rmdir" => {
                let Some((folder, name)) = self.place(&path(args[0])) else { return };
                self.note(begin, end, Change::Unname { folder, name });
            }
            "rename" => self.renames(begin, end, &path(args[0]), &path(args[1])),
            "renameat" | "renameat2" => self.renames(begin, end, &path(args[1]), &path(args[3])),
            // Nothing may go past the record.
            "mmap" => {
                let ours = number(4).is_some_and(|fd| self.open.contains_key(&fd));
                let harmless = !args[2].contains("PROT_WRITE") || args[3].contains("MAP_PRIVATE");
                assert!(!ours || harmless, "a file of the store is written through memory: {text}");
            }
            "sync" | "syncfs" | "io_uring_setup" => panic!("not understood: {text}"),
            "linkat" | "link" | "symlink" | "symlinkat" | "truncate" | "creat" | "open" | "openat2" => {
                let ours = args.iter().any(|a| a.starts_with('"') && self.place(&path(a)).is_some());
                assert!(!ours, "not understood: {text}");
            }
            "writev" | "pwritev" | "pwritev2" | "fallocate" | "copy_file_range" | "sendfile" | "splice" => {
                let ours = (0..3).filter_map(number).any(|fd| self.open.contains_key(&fd));
                assert!(!ours, "not understood: {text}");
            }
            _ => {}
        }
    }

    fn opens(&mut self, begin: usize, end: usize, place: Option<(Inode, String)>, flags: &str, fd: u64) {
        self.open.remove(&fd);
        let Some((folder, name)) = place else { return };
        let inode = match self.find(&(folder, name.clone())) {
            Some(inode) => inode,
            None => {
                assert!(flags.contains("O_CREAT"), "{name} comes from nowhere");
                let inode = self.new_inode(false);
                self.note(begin, end, Change::Name { folder, name, inode });
                inode
            }
        };
        if flags.contains("O_TRUNC") && self.lengths.get(&inode).copied().unwrap_or(0) > 0 {
            self.note(begin, end, Change::Length { inode, length: 0 });
        }
        self.open.insert(fd, Open { inode, position: 0, append: flags.contains("O_APPEND") });
    }

    fn duplicates(&mut self, from: Option<u64>, to: u64) {
        let open = from.and_then(|fd| self.open.get(&fd));
        // A shared position is not followed: it would be noticed by contents that do not fit.
        let copy = open.map(|o| Open { inode: o.inode, position: o.position, append: o.append });
        self.open.remove(&to);
        if let Some(copy) = copy {
            self.open.insert(to, copy);
        }
    }

    fn renames(&mut self, begin: usize, end: usize, from: &str, to: &str) {
        let (Some((old_folder, old)), Some((new_folder, new))) = (self.place(from), self.place(to)) else { return };
        let inode = self.find(&(old_folder, old.clone())).expect("it was there");
        if old_folder == new_folder {
            self.note(begin, end, Change::Rename { folder: old_folder, from: old, to: new, inode });
        } else {
            self.note(begin, end, Change::Name { folder: new_folder, name: new, inode });
            self.note(begin, end, Change::Unname { folder: old_folder, name: old });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        let inside: String = text.bytes().map(|b| format!("\\x{b:02x}")).collect();
        format!("\"{inside}\"")
    }

    #[test]
    fn a_record_is_understood() {
        let (a, b, elsewhere) = (hex("/r/a"), hex("/r/b"), hex("/etc/passwd"));
        let text = format!(
            "7 openat(AT_FDCWD, {elsewhere}, O_RDONLY) = 3\n\
             7 openat(AT_FDCWD, {a}, O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 4\n\
             7 write(4, {0}, 2 <unfinished ...>\n\
             8 pwrite64(4, {1}, 3, 100) = 3\n\
             7 <... write resumed>) = 2\n\
             7 write(3, {1}, 3) = 3\n\
             7 write(4, {1}, 3) = 3\n\
             7 fdatasync(4) = 0\n\
             7 ftruncate(4, 50) = 0\n\
             7 rename({a}, {b}) = 0\n\
             7 unlink({a}) = -1 ENOENT (No such file or directory)\n\
             7 write(1, {2}, 6) = 6\n\
             7 close(4) = 0\n\
             7 fsync(4) = -1 EBADF (Bad file descriptor)\n\
             7 +++ exited with 0 +++\n",
            hex("ab"),
            hex("cde"),
            hex("\nACK 7\n"),
        );
        let record = read(&text, "/r");
        let write = |at, bytes: &[u8]| Change::Write { inode: 1, at, bytes: bytes.to_vec() };
        let expected = [
            (1, 1, Change::Name { folder: ROOT, name: "a".into(), inode: 1 }),
            (3, 3, write(100, b"cde")),
            (2, 4, write(0, b"ab")),
            (6, 6, write(2, b"cde")),
            (7, 7, Change::Sync { inode: 1 }),
            (8, 8, Change::Length { inode: 1, length: 50 }),
            (9, 9, Change::Rename { folder: ROOT, from: "a".into(), to: "b".into(), inode: 1 }),
            (11, 11, Change::Say { text: "ACK 7".into() }),
        ];
        let expected = expected.map(|(begin, end, change)| Event { begin, end, change });
        assert_eq!(record.events, expected);
        assert_eq!(record.lines, 15);
    }

    #[test]
    #[should_panic(expected = "through memory")]
    fn a_mapping_that_is_written_is_not_overlooked() {
        let text = format!(
            "7 openat(AT_FDCWD, {}, O_RDWR|O_CREAT, 0666) = 4\n\
             7 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_SHARED, 4, 0) = 140000000000000\n",
            hex("/r/a")
        );
        let text = text.replace("140000000000000", "0x7f");
        read(&text.replace("0x7f", "1"), "/r");
    }
}
