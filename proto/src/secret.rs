//! [`Secret`]: never printed, wiped when dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::v1::Secret;

impl Secret {
    /// Wraps bytes that nobody may print.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: value.into() }
    }

    /// Takes the bytes out, into a buffer that is wiped in turn.
    pub fn into_inner(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(std::mem::take(&mut self.value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{AddUserRequest, Secret};

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let request =
            AddUserRequest { name: "ada".into(), password: Some(Secret::new(*b"open sesame")), ..Default::default() };
        let shown = format!("{request:?}");
        assert!(shown.contains("ada") && shown.contains("Secret(..)"), "{shown}");
        assert!(!shown.contains("sesame") && !shown.contains("111, 112"), "{shown}");
    }

    #[test]
    fn a_secret_gives_its_bytes_once() {
        assert_eq!(*Secret::new(*b"abc").into_inner(), b"abc");
    }
}
