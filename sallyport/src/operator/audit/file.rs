//! An export: a first line that says what follows, and one line for each entry, all JSON. Whoever verifies it needs the root's
//! certificate from elsewhere, and no controller.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sallyport_ca::Certificate;
use sallyport_ca::merkle::{Frontier, SignedTreeHead, head_keys, leaf_hash};
use serde::{Deserialize, Serialize};

use super::entry::Row;
use super::folder::unhex;
use crate::error::{Error, Result};

const FORMAT: &str = "sallyport audit log 1";
/// Longest line that is read, bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    /// Index of the first entry below.
    from: u64,
    /// Entries of the log.
    entries: u64,
    /// Root hash of their tree.
    root_hash: String,
    /// The signed head.
    head: String,
    /// The tree of the entries before the first one below.
    before: String,
    /// Certificates of authorities, one of which signed the head.
    issuers: Vec<String>,
    /// The roots above them: to compare with, not to believe.
    roots: Vec<String>,
}

/// Writes one.
pub(super) struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    head: Head,
    next: u64,
}

impl Writer {
    /// A new file.
    pub(super) fn create(
        path: &Path,
        head: &SignedTreeHead,
        from: u64,
        issuers: &[Vec<u8>],
        roots: &[Certificate],
    ) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|e| Error::file("create", path, &e))?;
        let head = Head {
            format: FORMAT.into(),
            from,
            entries: head.head.size,
            root_hash: crate::hex::lower(&head.head.root),
            head: crate::hex::lower(&head.to_bytes()),
            before: String::new(),
            issuers: issuers.iter().map(|der| crate::hex::lower(der)).collect(),
            roots: roots.iter().map(Certificate::pem).collect(),
        };
        Ok(Self { path: path.into(), out: BufWriter::new(file), head, next: from })
    }

    fn line(&mut self, value: &impl Serialize) -> Result {
        let failed = |e: std::io::Error| Error::file("write", &self.path, &e);
        serde_json::to_writer(&mut self.out, value).map_err(|e| failed(e.into()))?;
        self.out.write_all(b"\n").map_err(failed)
    }

    /// The first line, with the tree of what is left out.
    pub(super) fn begin(&mut self, before: &[u8]) -> Result {
        self.head.before = crate::hex::lower(before);
        let head = std::mem::replace(&mut self.head, Head { issuers: Vec::new(), roots: Vec::new(), ..blank() });
        self.line(&head)
    }

    /// The next entry.
    pub(super) fn entry(&mut self, leaf: &[u8]) -> Result {
        let row = Row::of(self.next, leaf)?;
        self.next += 1;
        self.line(&row)
    }

    /// Done.
    pub(super) fn end(mut self) -> Result {
        let failed = |e: std::io::Error| Error::file("write", &self.path, &e);
        self.out.flush().map_err(failed)?;
        self.out.get_ref().sync_all().map_err(failed)
    }
}

fn blank() -> Head {
    Head {
        format: String::new(),
        from: 0,
        entries: 0,
        root_hash: String::new(),
        head: String::new(),
        before: String::new(),
        issuers: Vec::new(),
        roots: Vec::new(),
    }
}

/// Adds entries to a tree, and looks at each.
pub(super) struct Checker {
    tree: Frontier,
    time_ms: u64,
}

impl Checker {
    /// After these.
    pub(super) const fn after(tree: Frontier) -> Self {
        Self { tree, time_ms: 0 }
    }

    /// The next entry, as it was hashed.
    pub(super) fn add(&mut self, leaf: &[u8]) -> Result<Row> {
        let row = Row::of(self.tree.size(), leaf)?;
        if row.time_ms() < self.time_ms {
            return Err(Error::failed(format!("entry {} is earlier than the one before it", row.index)));
        }
        self.time_ms = row.time_ms();
        self.tree.append(leaf_hash(leaf), |_, _| {});
        Ok(row)
    }

    /// Whether these are all entries of the log of this head, and no other.
    pub(super) fn end(&self, head: &SignedTreeHead) -> Result {
        let (is, said) = (&self.tree, &head.head);
        if is.size() != said.size {
            return Err(Error::failed(format!("there are {} entries, and {} were signed", is.size(), said.size)));
        }
        if is.root() != said.root {
            return Err(Error::failed("the entries are not those that were signed: at least one was changed"));
        }
        if self.time_ms != 0 && self.time_ms != said.time_ms {
            return Err(Error::failed("the signed head has another time than the last entry"));
        }
        Ok(())
    }
}

/// What was found in a file.
#[derive(Serialize)]
pub(super) struct Verified {
    pub(super) file: PathBuf,
    pub(super) from: u64,
    pub(super) entries: u64,
    pub(super) root_hash: String,
    pub(super) signed_by: String,
}

/// Verifies a file: that these are the entries whose head an authority below one of `roots` has signed.
pub(super) fn verify(path: &Path, roots: &[Certificate], progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
    let file = File::open(path).map_err(|e| Error::file("read", path, &e))?;
    verify_lines(&mut BufReader::new(file), roots, progress)
        .map(|verified| Verified { file: path.into(), ..verified })
        .map_err(|e| e.context(path.display()))
}

fn next_line(from: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    let read = from.by_ref().take(MAX_LINE).read_line(&mut line).map_err(|e| Error::failed(format!("{e}")))?;
    if read as u64 == MAX_LINE {
        return Err(Error::failed("a line is too long"));
    }
    Ok((read > 0).then_some(line))
}

fn verify_lines(
    from: &mut impl BufRead,
    roots: &[Certificate],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified> {
    let none = || Error::failed("not an export of an audit log");
    let line = next_line(from)?.ok_or_else(none)?;
    let said: Head = serde_json::from_str(&line).map_err(|_| none())?;
    if said.format != FORMAT {
        return Err(none().remedy("update this program, if it was written by a newer one"));
    }
    let head = unhex(&said.head).and_then(|bytes| SignedTreeHead::from_bytes(&bytes).ok()).ok_or_else(none)?;
    let issuers: Vec<Vec<u8>> = said.issuers.iter().filter_map(|hex| unhex(hex)).collect();
    head.verify(&head_keys(roots, &issuers)).map_err(|e| {
        Error::failed(e.to_string())
            .remedy("is this the root of the cluster whose log it is? --root FILE names another")
    })?;
    let before = unhex(&said.before).and_then(|bytes| Frontier::from_bytes(&bytes)).ok_or_else(none)?;
    let plain = (before.size(), said.entries, &said.root_hash);
    if plain != (said.from, head.head.size, &crate::hex::lower(&head.head.root)) {
        return Err(Error::failed("its first line does not say what its signed head says"));
    }
    let mut checker = Checker::after(before);
    while let Some(line) = next_line(from)? {
        let said: Row = serde_json::from_str(&line).map_err(|_| Error::failed("a line is no entry"))?;
        let leaf = unhex(&said.leaf).ok_or_else(|| Error::failed("a line is no entry"))?;
        let row = checker.add(&leaf)?;
        // What people read must be what was hashed.
        if row != said {
            return Err(Error::failed(format!("line of entry {}: it says something else than its leaf", row.index)));
        }
        progress(row.index + 1 - plain.0, head.head.size.saturating_sub(plain.0));
    }
    checker.end(&head)?;
    Ok(Verified {
        file: PathBuf::new(),
        from: said.from,
        entries: head.head.size - said.from,
        root_hash: said.root_hash.clone(),
        signed_by: crate::hex::lower(&head.head.key_id),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use sallyport_ca::seal::SealKey;
    use sallyport_ca::{Authority, RootConfig, SystemRandom, UnixTime};
    use sallyport_proto::v1::{LogEntry, LogKind};

    use super::*;

    fn export(since: usize) -> (Certificate, Vec<u8>) {
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).unwrap();
        let config = RootConfig::new("Example", "Example Root");
        let (root, _) = Authority::create(&config, &seal, UnixTime(1_800_000_000), &rng).unwrap();
        let kinds = [LogKind::Begun, LogKind::TokenMade, LogKind::CertificateIssued, LogKind::CertificateRevoked];
        let leaves: Vec<Vec<u8>> = (1_u64..)
            .zip(kinds.repeat(5))
            .map(|(n, kind)| {
                let entry = LogEntry {
                    version: 1,
                    time_unix_ms: n * 1_000,
                    kind: kind.into(),
                    name: format!("laptop{n}"),
                    ..LogEntry::default()
                };
                entry.encode_to_vec()
            })
            .collect();
        let (mut tree, mut before) = (Frontier::new(), Frontier::new());
        for (at, leaf) in leaves.iter().enumerate() {
            tree.append(leaf_hash(leaf), |_, _| {});
            if at < since {
                before.append(leaf_hash(leaf), |_, _| {});
            }
        }
        let head = root.sign_tree_head([7; 16], &tree, 20_000, &rng).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let roots = [root.certificate().clone()];
        let mut out = Writer::create(&path, &head, since as u64, &[], &roots).unwrap();
        out.begin(&before.to_bytes()).unwrap();
        leaves[since..].iter().for_each(|leaf| out.entry(leaf).unwrap());
        out.end().unwrap();
        assert!(Writer::create(&path, &head, 0, &[], &roots).is_err(), "no file is written over");
        (root.certificate().clone(), std::fs::read(&path).unwrap())
    }

    fn check(bytes: &[u8], root: &Certificate) -> Result<Verified> {
        verify_lines(&mut &bytes[..], std::slice::from_ref(root), &mut |_, _| {})
    }

    #[test]
    fn an_export_verifies_by_the_root_alone_and_no_changed_byte_passes() {
        for since in [0, 1, 13, 20] {
            let (root, bytes) = export(since);
            let verified = check(&bytes, &root).unwrap();
            assert_eq!((verified.from, verified.entries), (since as u64, 20 - since as u64));
            let (other, _) = export(0);
            assert!(check(&bytes, &other).is_err_and(|e| e.cause().contains("not trusted")));
            // But for the roots, which are there to compare with.
            let text = String::from_utf8(bytes.clone()).unwrap();
            let roots = text.find("\"roots\"").unwrap()..text.find('\n').unwrap();
            for at in (0..bytes.len()).filter(|at| !roots.contains(at)).step_by(7) {
                let mut changed = bytes.clone();
                changed[at] ^= 2;
                assert!(check(&changed, &root).is_err(), "byte {at} of {since}: {:?}", changed[at] as char);
            }
            let lines: Vec<&str> = text.lines().collect();
            let mut fewer = lines.clone();
            if fewer.len() > 2 {
                fewer.remove(1);
                assert!(check(fewer.join("\n").as_bytes(), &root).is_err());
                fewer = lines[..lines.len() - 1].to_vec();
                assert!(check(fewer.join("\n").as_bytes(), &root).is_err());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_is_no_export_is_an_error_and_no_more(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (root, whole) = ROOT.with(Clone::clone);
            prop_assert!(check(text.as_bytes(), &root).is_err());
            prop_assert!(check(&bytes, &root).is_err());
            let first = whole.iter().position(|b| *b == b'\n').unwrap_or(0);
            prop_assert!(check(&[&whole[..=first], text.as_bytes()].concat(), &root).is_err());
        }
    }

    thread_local! {
        static ROOT: (Certificate, Vec<u8>) = export(0);
    }
}
