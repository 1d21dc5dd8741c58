//! Which resource a path names.

/// An operation of EST, RFC 7030 §3.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Est {
    /// CA certificates.
    CaCerts,
    /// A first certificate.
    SimpleEnroll,
    /// A renewal.
    SimpleReenroll,
    /// What a request should contain.
    CsrAttrs,
    /// A certificate with a key made here.
    ServerKeyGen,
}

/// A resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/`: the page for people.
    Page,
    /// `/ca.pem`: all CA certificates.
    CaPem,
    /// `/ca/NUMBER.cer`, `/ca/root.cer`: one CA certificate. The root has the number 0.
    Authority(u64),
    /// `/ca/NUMBER/SHARD.crl`, `/ca/NUMBER.crl`, `/ca/root.crl`: a revocation list, of a shard or of everything.
    Crl(u64, Option<u32>),
    /// `/ca/NUMBER/SHARD-delta.crl`, `/ca/NUMBER-delta.crl`: what changed on such a list.
    DeltaCrl(u64, Option<u32>),
    /// `/ocsp`; with the request in the path if that is longer (RFC 6960 §A.1).
    Ocsp(Option<&'a str>),
    /// `/.well-known/est/[LABEL/]OPERATION`. The label is not looked at: what is issued hangs on the token.
    Est(Est),
    /// `/scep`, and the paths that older clients put behind a host name by themselves.
    Scep,
}

impl<'a> Route<'a> {
    /// The resource of a path; `None` if there is none.
    pub fn of(path: &'a str) -> Option<Self> {
        if let Some(est) = path.strip_prefix("/.well-known/est/") {
            let operation = match est.split_once('/') {
                Some((label, operation)) if !label.is_empty() => operation,
                Some(_) => return None,
                None => est,
            };
            return Some(Self::Est(match operation {
                "cacerts" => Est::CaCerts,
                "simpleenroll" => Est::SimpleEnroll,
                "simplereenroll" => Est::SimpleReenroll,
                "csrattrs" => Est::CsrAttrs,
                "serverkeygen" => Est::ServerKeyGen,
                _ => return None,
            }));
        }
        if let Some(request) = path.strip_prefix("/ocsp/") {
            return Some(Self::Ocsp(Some(request).filter(|r| !r.is_empty())));
        }
        match path {
            "/" | "/index.html" => return Some(Self::Page),
            "/ca.pem" => return Some(Self::CaPem),
            "/ca/root.cer" => return Some(Self::Authority(0)),
            "/ca/root.crl" => return Some(Self::Crl(0, None)),
            "/ocsp" => return Some(Self::Ocsp(None)),
            "/scep" | "/scep/" | "/scep/pkiclient.exe" | "/cgi-bin/pkiclient.exe" => return Some(Self::Scep),
            _ => {}
        }
        let below = path.strip_prefix("/ca/")?;
        match below.split_once('/') {
            None => match below.strip_suffix(".crl") {
                Some(list) => match list.strip_suffix("-delta") {
                    Some(issuer) => Some(Self::DeltaCrl(number(issuer)?, None)),
                    None => Some(Self::Crl(number(list)?, None)),
                },
                None => Some(Self::Authority(number(below.strip_suffix(".cer")?)?)),
            },
            Some((issuer, shard)) => {
                let (issuer, list) = (number(issuer)?, shard.strip_suffix(".crl")?);
                let shard = |text| u32::try_from(number(text)?).ok();
                Some(match list.strip_suffix("-delta") {
                    Some(list) => Self::DeltaCrl(issuer, Some(shard(list)?)),
                    None => Self::Crl(issuer, Some(shard(list)?)),
                })
            }
        }
    }
}

/// A decimal number as we write it: no sign, no leading zero, so that each list has one address.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// The value of `key` in a query, percent-decoded as far as it is well-formed; `+` stays, for base64 is what stands there.
pub(crate) fn query(query: &str, key: &str) -> Option<Vec<u8>> {
    let value = query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        name.eq_ignore_ascii_case(key).then_some(value)
    })?;
    Some(percent_decode(value))
}

/// RFC 3986 §2.1. What is no escape stays as it is.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        match (first, hex(after.first()), hex(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or(&[]);
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_path_names_what_it_should() {
        for (path, route) in [
            ("/", Some(Route::Page)),
            ("/ca.pem", Some(Route::CaPem)),
            ("/ca/root.cer", Some(Route::Authority(0))),
            ("/ca/7.cer", Some(Route::Authority(7))),
            ("/ca/07.cer", None),
            ("/ca/+7.cer", None),
            ("/ca/99999999999999999999.cer", None),
            ("/ca/7/63.crl", Some(Route::Crl(7, Some(63)))),
            ("/ca/7.crl", Some(Route::Crl(7, None))),
            ("/ca/07.crl", None),
            ("/ca/7/63-delta.crl", Some(Route::DeltaCrl(7, Some(63)))),
            ("/ca/7-delta.crl", Some(Route::DeltaCrl(7, None))),
            ("/ca/7/063-delta.crl", None),
            ("/ca/7/-delta.crl", None),
            ("/ca/7-delta-delta.crl", None),
            ("/ca/7-delta.cer", None),
            ("/ca/root-delta.crl", None),
            ("/ca/7/4294967296.crl", None),
            ("/ca/7/63.crl/", None),
            ("/ca/root.crl", Some(Route::Crl(0, None))),
            ("/ocsp", Some(Route::Ocsp(None))),
            ("/ocsp/", Some(Route::Ocsp(None))),
            ("/ocsp/MEow/SDBG", Some(Route::Ocsp(Some("MEow/SDBG")))),
            ("/scep", Some(Route::Scep)),
            ("/.well-known/est/cacerts", Some(Route::Est(Est::CaCerts))),
            ("/.well-known/est/label/simpleenroll", Some(Route::Est(Est::SimpleEnroll))),
            ("/.well-known/est//simpleenroll", None),
            ("/.well-known/est/a/b/simpleenroll", None),
            ("/.well-known/est/fullcmc", None),
            ("/../etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn a_value_is_found_and_decoded_in_a_query() {
        let text = "operation=PKIOperation&message=MII%2BAb+c%3D%3D%zz";
        assert_eq!(query(text, "operation").unwrap(), b"PKIOperation");
        assert_eq!(query(text, "message").unwrap(), b"MII+Ab+c==%zz");
        assert_eq!(query("message", "message").unwrap(), b"");
        assert_eq!(query(text, "other"), None);
    }

    proptest! {
        #[test]
        fn no_path_or_query_panics(text in ".{0,200}") {
            let _ = Route::of(&text);
            let _ = query(&text, "message");
            prop_assert!(percent_decode(&text).len() <= text.len());
        }

        #[test]
        fn what_was_escaped_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let text: String = bytes.iter().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(percent_decode(&text), bytes);
        }
    }
}
