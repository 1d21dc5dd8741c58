//! Bytes as hexadecimal digits.

/// Lower case, without separators.
pub(crate) fn lower(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(super::lower(&[0, 10, 255]), "000aff");
    }
}
