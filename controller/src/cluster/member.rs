//! The file that says which member a node is. It lies beside the node's certificate, outside the store: a node that lost its store
//! still knows who it was, and must not vote as that any more.

use std::path::Path;

use crate::error::Error;
use crate::files;

/// Which member a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberFile {
    /// Names the cluster.
    pub(crate) cluster: Vec<u8>,
    /// When the cluster was restored from a backup, milliseconds since 1970; 0 if it never was.
    pub(crate) begun_ms: u64,
    /// Its id.
    pub(crate) id: u64,
    /// HOST:PORT of the members when they were last seen: where to ask after the loss of the store.
    pub(crate) members: Vec<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}

impl MemberFile {
    /// Reads it; `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(bytes) = files::read_public(path)? else { return Ok(None) };
        Self::parse(&String::from_utf8_lossy(&bytes)).map(Some).ok_or_else(|| Error::File {
            path: path.into(),
            cause: "it does not say which member of which cluster this node is".into(),
            remedy: "remove this state folder and join again with a new token".into(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut file = Self { cluster: Vec::new(), begun_ms: 0, id: 0, members: Vec::new() };
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            let (key, value) = line.split_once('=')?;
            match key.trim() {
                "cluster" => file.cluster = unhex(value.trim())?,
                "restored" => file.begun_ms = value.trim().parse().ok()?,
                "id" => file.id = value.trim().parse().ok()?,
                "member" => file.members.push(value.trim().to_owned()),
                _ => return None,
            }
        }
        (file.id != 0 && !file.cluster.is_empty()).then_some(file)
    }

    fn text(&self) -> String {
        let mut text = format!("cluster = {}\nid = {}\n", hex(&self.cluster), self.id);
        if self.begun_ms != 0 {
            text.push_str(&format!("restored = {}\n", self.begun_ms));
        }
        for member in &self.members {
            text.push_str(&format!("member = {member}\n"));
        }
        text
    }

    /// Writes it, unless it is there already.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = self.text();
        match files::read_public(path)? {
            Some(present) if present == text.as_bytes() => Ok(()),
            _ => files::write_private(path, text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_a_node_is_survives_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("member");
        assert_eq!(MemberFile::read(&path).expect("reads"), None);
        let file = MemberFile {
            cluster: vec![0xab; 16],
            begun_ms: 1_800_000_000_000,
            id: 3,
            members: vec!["10.0.0.1:7443".into(), "[2001:db8::1]:7443".into()],
        };
        file.write(&path).expect("writes");
        assert_eq!(MemberFile::read(&path).expect("reads"), Some(file));
        for wrong in
            ["", "id = 3", "cluster = abc\nid = 1", "cluster = ab\nid = x", "cluster = ab\nid = 1\nvoter = yes"]
        {
            std::fs::write(&path, wrong).expect("writes");
            assert!(MemberFile::read(&path).is_err_and(|e| e.to_string().contains("join again")), "{wrong}");
        }
    }
}
