//! Where in the file something stands.

use toml::de::{DeTable, DeValue};

/// `LINE:COLUMN:` of a byte offset, both counted from 1.
pub(super) fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{line}:{column}:")
}

/// The byte offset of `key` in `[section]`; of the section itself, or the nearest one above it, where the key is left to
/// its default.
pub(super) fn key(text: &str, section: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut nearest = None;
    for name in section.split('.').chain([key]) {
        let Some((found, value)) = table.get_key_value(name) else { return nearest };
        nearest = Some(found.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return nearest,
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a = 1\näb = 2\n";
        assert_eq!(position(text, 0), "1:1:");
        assert_eq!(position(text, text.find('b').unwrap()), "2:2:");
        assert_eq!(position(text, 1000), "3:1:");
    }

    #[test]
    fn a_key_is_found_in_its_section_or_the_nearest_one() {
        let text = "[gateway]\nname = \"x\"\n[gateway.ike]\nport = 0\n";
        let at = |section, name| position(text, key(text, section, name).unwrap());
        assert_eq!(at("gateway.ike", "port"), "4:1:");
        assert_eq!(at("gateway.ike", "hash"), "3:10:");
        assert_eq!(at("gateway", "name"), "2:1:");
        assert_eq!(key(text, "controller", "listen"), None);
    }
}
