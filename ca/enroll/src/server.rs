//! Where the enrollment endpoint is.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use rustls_pki_types::ServerName;

use crate::{Error, Kind};

/// The port of HTTPS.
const PORT: u16 = 443;

/// A host and a port: `vpn.example.com`, `vpn.example.com:8443`, `192.0.2.1`, `[2001:db8::1]:8443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port of HTTPS.
    pub port: u16,
}

impl Server {
    /// What its certificate must be for.
    pub(crate) fn name(&self) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(self.host.clone()).map_err(|_| wrong(&self.host))
    }
}

fn wrong(text: &str) -> Error {
    Error::new(
        Kind::Usage,
        format!("{:?} is no server", crate::error::foreign(text)),
        "give --server as HOST or HOST:PORT, such as vpn.example.com",
    )
}

impl FromStr for Server {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
            Some((host, rest)) => {
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(|| wrong(text))?) })
            }
            None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(PORT), |p| p.parse().ok().filter(|p| *p != 0).ok_or_else(|| wrong(text)))?;
        let server = Self { host: host.to_ascii_lowercase(), port };
        server.name().map_err(|_| wrong(text))?;
        Ok(server)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}", self.host)?;
        if self.port == PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_perhaps_a_port() {
        for (text, host, port, shown) in [
            ("VPN.example.com", "vpn.example.com", 443, "vpn.example.com"),
            ("vpn.example.com:443", "vpn.example.com", 443, "vpn.example.com"),
            ("192.0.2.1:8443", "192.0.2.1", 8443, "192.0.2.1:8443"),
            ("2001:db8::1", "2001:db8::1", 443, "[2001:db8::1]"),
            ("[2001:db8::1]:8443", "2001:db8::1", 8443, "[2001:db8::1]:8443"),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!((server.host.as_str(), server.port, server.to_string().as_str()), (host, port, shown));
        }
        for text in
            ["", "https://vpn.example.com", "vpn.example.com:0", "vpn.example.com:x", "[::1", "[::1]8", "a b", "a:1:2"]
        {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
