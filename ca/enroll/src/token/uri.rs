//! Where a key is kept that never leaves: the little of RFC 7512 that names a token, its module and its PIN.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::install::check_path;
use crate::{Error, Kind, Result};

/// The label of the token that is made for this program in a TPM.
const TPM_TOKEN: &str = "sallyport";
/// The module of a TPM (tpm2-pkcs11), as distributions install it; `{}` is the machine's architecture.
const TPM_MODULES: [&str; 4] = [
    "/usr/lib/{}-linux-gnu/libtpm2_pkcs11.so.1",
    "/usr/lib/{}-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib64/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/pkcs11/libtpm2_pkcs11.so",
];

/// A token, the module that speaks to it, and the file with its PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPlace {
    /// The token's label.
    pub token: String,
    /// The module's path.
    pub module: String,
    /// The file whose first line is the PIN; empty until somebody has said which.
    pub pin_file: String,
}

fn wrong(why: &str) -> Error {
    Error::new(
        Kind::Usage,
        format!("this names no token: {why}"),
        "such as pkcs11:token=vpn?module-path=/usr/lib/softhsm/libsofthsm2.so, or tpm",
    )
}

impl TokenPlace {
    /// The token in this machine's TPM.
    pub fn tpm() -> Result<Self> {
        let paths = TPM_MODULES.iter().map(|path| path.replace("{}", std::env::consts::ARCH));
        let module = paths.into_iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
            Error::machine(
                "the PKCS #11 module of the TPM is not installed",
                "apt-get install libtpm2-pkcs11-1 (Fedora: tpm2-pkcs11), and see that /dev/tpmrm0 is there",
            )
        })?;
        Ok(Self { token: TPM_TOKEN.to_owned(), module, pin_file: String::new() })
    }
}

impl FromStr for TokenPlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("pkcs11:").ok_or_else(|| wrong("it does not begin with pkcs11:"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut place = Self { token: String::new(), module: String::new(), pin_file: String::new() };
        for part in path.split(';').chain(query.split('&')).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong("a part of it has no value"))?;
            let value = decoded(value).ok_or_else(|| wrong("a % has no two hexadecimal digits behind it"))?;
            match name {
                "token" => place.token = value,
                "module-path" => place.module = value,
                "pin-source" => place.pin_file = value.strip_prefix("file:").unwrap_or(&value).to_owned(),
                "pin-value" => {
                    return Err(Error::new(
                        Kind::Usage,
                        "a PIN does not belong on a command line, where every user sees it",
                        "leave pin-value out: the PIN is asked for, or read from --pin-file FILE",
                    ));
                }
                other => {
                    return Err(wrong(&format!(
                        "{:?} is not known; there are token, module-path and pin-source",
                        crate::error::foreign(other)
                    )));
                }
            }
        }
        if place.token.is_empty() || place.token.len() > 32 || place.token.chars().any(char::is_control) {
            return Err(wrong("token= with the token's label, of at most 32 bytes, is missing"));
        }
        if place.module.is_empty() {
            return Err(wrong("module-path= with the path of the token's module is missing"));
        }
        check_path("the path of the token's module", &place.module)?;
        if !place.pin_file.is_empty() {
            check_path("the path of the file with the PIN", &place.pin_file)?;
        }
        Ok(place)
    }
}

impl fmt::Display for TokenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkcs11:token={}?module-path={}", encoded(&self.token), encoded(&self.module))?;
        if self.pin_file.is_empty() { Ok(()) } else { write!(f, "&pin-source=file:{}", encoded(&self.pin_file)) }
    }
}

/// RFC 3986 §2.1, for what is not plain in any part of such a URI.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digit = |b: u8| char::from(b).to_digit(16);
        bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_read_and_written_back() {
        let text = "pkcs11:token=My%20VPN?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/pin";
        let place: TokenPlace = text.parse().unwrap();
        assert_eq!(
            (place.token.as_str(), place.module.as_str(), place.pin_file.as_str()),
            ("My VPN", "/usr/lib/softhsm/libsofthsm2.so", "/etc/pin")
        );
        assert_eq!(place.to_string(), text);
        let odd = TokenPlace { token: "a;b&c=%?é".into(), ..place };
        assert_eq!(odd.to_string().parse::<TokenPlace>().unwrap(), odd);
    }

    #[test]
    fn what_names_no_token_is_told_why() {
        for (text, part) in [
            ("softhsm", "pkcs11:"),
            ("pkcs11:", "token="),
            ("pkcs11:token=vpn", "module-path="),
            ("pkcs11:token=vpn?module-path=lib.so", "absolute path"),
            ("pkcs11:token=vpn;slot-id=1?module-path=/l.so", "slot-id"),
            ("pkcs11:token=vp%6?module-path=/l.so", "hexadecimal"),
            ("pkcs11:token=vp%ff?module-path=/l.so", "hexadecimal"),
            ("pkcs11:token=v%0a?module-path=/l.so", "token="),
            ("pkcs11:token=vpn?module-path=/l.so%0aload=yes", "control characters"),
            ("pkcs11:token=vpn?module-path=/l.so&pin-value=1234", "every user sees it"),
        ] {
            let error = text.parse::<TokenPlace>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("1234"), "{text}: {error}");
        }
    }
}
