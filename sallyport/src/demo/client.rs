//! The laptop's end of the tunnel: the built-in client, with a TUN device in this network namespace.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use sallyport_ca::pem;
use sallyport_client::{Auth, Certificate, Driver, Event, Settings};
use sallyport_ppp::AuthMethod;
use zeroize::Zeroizing;

use super::link::{Cidr, Links};
use super::wire::{Connect, Report};
use crate::clock::unix_now;
use crate::error::{Error, Result};

/// The TUN device of the client.
const DEVICE: &str = "vpn0";

/// A tunnel that is up.
pub(crate) struct Tunnel {
    driver: Driver,
    address: Ipv4Addr,
    dns: Vec<Ipv4Addr>,
    mtu: u16,
}

impl Tunnel {
    /// Connects, gives the device its address and routes; `phase` is called as each phase is reached.
    pub(crate) async fn connect(connect: &Connect, links: &Links, mut phase: impl FnMut(&str, String)) -> Result<Self> {
        let settings = settings(connect)?;
        let mut driver = Driver::start(settings, DEVICE, unix_now())
            .await
            .map_err(|e| Error::failed(format!("the client does not start: {e}")))?;
        while let Some(event) = driver.events.recv().await {
            match event {
                Event::Reached { phase: name, detail } => phase(name.as_str(), detail),
                Event::Rekeyed => phase("rekeyed", String::new()),
                Event::Up { address, dns, mtu, .. } => {
                    links.add_address(DEVICE, Cidr::new(address, 32)).await?;
                    links.up(DEVICE).await?;
                    for route in &connect.routes {
                        links.add_device_route(*route, DEVICE).await?;
                    }
                    return Ok(Self { driver, address, dns, mtu });
                }
                Event::Down { cause, remedy } => {
                    let error = Error::failed(cause);
                    return Err(match remedy {
                        Some(remedy) => error.remedy(remedy),
                        None => error,
                    });
                }
            }
        }
        Err(Error::failed("the client ended without a word"))
    }

    /// What the demo is told about it.
    pub(crate) fn report(&self) -> Report {
        Report::Connected {
            address: self.address.into(),
            dns: self.dns.iter().copied().map(IpAddr::V4).collect(),
            mtu: self.mtu,
        }
    }

    /// Hangs up: PPP, L2TP and IKE take their leave in this order.
    pub(crate) async fn disconnect(self) {
        self.driver.disconnect().await;
    }
}

fn settings(connect: &Connect) -> Result<Settings> {
    let unusable = |what: &str, e: &dyn std::fmt::Display| Error::failed(format!("{what} cannot be used: {e}"));
    let key = pem::private_key(&Zeroizing::new(read(&connect.key)?)).map_err(|e| unusable("the machine's key", &e))?;
    let mut chain =
        pem::certificates(&read(&connect.certificate)?).map_err(|e| unusable("the machine's certificate", &e))?;
    chain.extend(pem::certificates(&read(&connect.chain)?).map_err(|e| unusable("the issuing authority", &e))?);
    let gateway_name = Some(connect.gateway_name.as_str());
    let certificate = Certificate::new(&key, chain, &read(&connect.ca)?, gateway_name, unix_now())
        .map_err(|e| Error::failed(e.to_string()))?;
    let password = String::from_utf8(read(&connect.password_file)?).map_err(|e| unusable("the password", &e))?;
    Ok(Settings {
        local: connect.local.into(),
        gateway: connect.gateway.into(),
        ports: (500, 4500),
        auth: Auth::Certificate(Box::new(certificate)),
        esp: Vec::new(),
        groups: Vec::new(),
        hashes: Vec::new(),
        native_esp: false,
        user: connect.user.clone(),
        password: Zeroizing::new(password),
        methods: vec![AuthMethod::MsChapV2],
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::file("read", path, &e))
}
