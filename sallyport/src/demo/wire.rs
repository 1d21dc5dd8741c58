//! What the demo's processes say to each other: one JSON object a line, orders on the standard input of a helper
//! process, reports on its standard output.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::link::Cidr;

/// Who a helper process plays. Each lives in a network namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// The laptop that connects.
    Client,
    /// The host behind the gateway.
    Inside,
}

/// From the demo to a helper. Each order gets exactly one final report; phases may come before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "order")]
pub(crate) enum Order {
    /// Bring up the device that was moved here.
    Configure {
        /// The device.
        device: String,
        /// Its address.
        address: Cidr,
        /// Where everything else goes, if anywhere.
        default_route: Option<Ipv4Addr>,
    },
    /// Serve the page.
    Serve {
        /// TCP port.
        port: u16,
    },
    /// Ask a host whether it is there.
    Ping {
        /// Whom.
        target: Ipv4Addr,
        /// How often.
        count: u16,
        /// How long to wait for each reply, milliseconds.
        timeout_ms: u64,
    },
    /// Read the page.
    Fetch {
        /// From whom.
        address: Ipv4Addr,
        /// TCP port.
        port: u16,
    },
    /// Bring the tunnel up.
    Connect(Connect),
    /// Take the tunnel down.
    Disconnect,
}

/// What a client must know to connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Connect {
    /// The client's own address.
    pub(crate) local: Ipv4Addr,
    /// Outside address of the gateway.
    pub(crate) gateway: Ipv4Addr,
    /// Name that must stand in the gateway's certificate.
    pub(crate) gateway_name: String,
    /// The machine's private key, PKCS#8 PEM.
    pub(crate) key: PathBuf,
    /// The machine's certificate, PEM.
    pub(crate) certificate: PathBuf,
    /// What is between it and the root, PEM.
    pub(crate) chain: PathBuf,
    /// The root, PEM.
    pub(crate) ca: PathBuf,
    /// The user's name.
    pub(crate) user: String,
    /// File with the user's password: it is in no argument list and no log.
    pub(crate) password_file: PathBuf,
    /// Networks to be reached through the tunnel.
    pub(crate) routes: Vec<Cidr>,
}

/// From a helper to the demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "report")]
pub(crate) enum Report {
    /// The helper is in its namespace.
    Ready,
    /// The order was carried out.
    Done,
    /// A phase was reached.
    Phase {
        /// Its name.
        phase: String,
        /// What was agreed.
        detail: String,
    },
    /// The tunnel is up.
    Connected {
        /// The address in the tunnel.
        address: IpAddr,
        /// The name servers that the gateway gave.
        dns: Vec<IpAddr>,
        /// The largest packet that fits.
        mtu: u16,
    },
    /// Replies came.
    Pong {
        /// Round-trip times, microseconds; as many as there were replies.
        micros: Vec<u64>,
    },
    /// The page came.
    Page {
        /// HTTP status.
        status: u16,
        /// Its title.
        title: String,
        /// From where the server saw the request come.
        caller: Option<IpAddr>,
    },
    /// The order failed.
    Failed {
        /// Why.
        cause: String,
        /// What to do.
        remedy: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_are_one_line_each() {
        let order = Order::Configure {
            device: "eth0".into(),
            address: Cidr::new(Ipv4Addr::new(192, 0, 2, 1), 24),
            default_route: None,
        };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'));
        assert!(matches!(serde_json::from_str(&line), Ok(Order::Configure { device, .. }) if device == "eth0"));
        let line = serde_json::to_string(&Report::Failed { cause: "two\nlines".into(), remedy: None }).unwrap();
        assert!(!line.contains('\n'));
        assert!(matches!(serde_json::from_str(&line), Ok(Report::Failed { .. })));
    }
}
