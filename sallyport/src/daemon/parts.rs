//! The parts that roles and the demo are put together from.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use sallyport_ca::{Certificate, check_dns_name};
use sallyport_controller::{Config as ControllerConfig, Controller, Formation, Running as RunningController, Start};
use sallyport_gateway::app::{Gateway, Running as RunningGateway, StartError};
use sallyport_gateway::config::GatewayConfig;
use sallyport_gateway::identity::Identity;

use zeroize::Zeroizing;

use crate::error::{Error, Exit, Result};

/// Starts a controller on `state` that a gateway is started beside, making a cluster where there is none.
pub(crate) async fn start_controller(config: ControllerConfig, state: &Path) -> Result<RunningController> {
    let start = Start { with_gateway: true, ..Start::new(Formation::Found) };
    Controller::start_as(config, state, start).await.map_err(controller_error)
}

/// Starts a controller on `state`; `formation` is for an empty one.
pub(crate) async fn form_controller(
    config: ControllerConfig,
    state: &Path,
    formation: Formation,
) -> Result<RunningController> {
    Controller::form(config, state, formation).await.map_err(controller_error)
}

/// Where a program on this machine reaches something that listens at `address`.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// What a controller says when it cannot go on.
pub(crate) fn controller_error(error: sallyport_controller::Error) -> Error {
    use sallyport_controller::Error as E;
    match error {
        E::Config(_) => Error::new(Exit::Config, error.to_string()),
        E::Listen { .. } => Error::machine(error.to_string()),
        _ => Error::failed(error.to_string()),
    }
}

/// Starts a gateway beside the controller that makes its certificates, in `dir`.
pub(crate) async fn start_local_gateway(
    mut config: GatewayConfig,
    controller: &RunningController,
    dir: &Path,
) -> Result<RunningGateway> {
    if config.name.is_empty() {
        config.name = host_name();
    }
    if config.public_names.is_empty() {
        config.public_names = vec![config.name.clone()];
        config.public_names.extend(config.public_addresses.iter().map(IpAddr::to_string));
    }
    let made = controller.issue_gateway(&config.name, &config.public_names, dir).await;
    made.map_err(|e| controller_error(e).context("the gateway's certificates"))?;
    config.controllers = vec![reachable(controller.grpc_address()).to_string()];
    start_gateway(config, dir, None).await
}

/// Starts a gateway with the identity in the folder `dir`; where there is none, it gets one by the token.
pub(crate) async fn start_gateway(
    mut config: GatewayConfig,
    dir: &Path,
    token: Option<Zeroizing<String>>,
) -> Result<RunningGateway> {
    let identity = match (Identity::load(dir), token) {
        (Err(_), Some(token)) => {
            let enrolled = sallyport_gateway::first::enroll(&config.controllers, &token, dir).await;
            enrolled.map_err(|e| Error::failed(e.to_string()))?
        }
        (loaded, _) => loaded.map_err(|e| Error::failed(e.to_string()))?,
    };
    if config.name.is_empty() {
        config.name = name_in_certificate(&identity)?;
    }
    Gateway::start_in(config, identity, dir.to_path_buf()).await.map_err(gateway_error)
}

fn gateway_error(error: StartError) -> Error {
    let text = error.to_string();
    match error {
        StartError::Config(_) => Error::new(Exit::Config, text),
        StartError::Inside(_) | StartError::Data(_) | StartError::MetricsAddress { .. } => Error::machine(text),
        StartError::Controller(_) => Error::new(Exit::Unreachable, text),
        _ => Error::failed(text),
    }
}

/// The name in the certificate that the gateway shows to controllers: they know it by that name.
fn name_in_certificate(identity: &Identity) -> Result<String> {
    let certificate = Certificate::from_pem(&identity.grpc_chain)
        .map_err(|e| Error::failed(format!("the gateway's grpc.pem is no certificate: {e}")))?;
    common_name(&certificate.subject).map(str::to_owned).ok_or_else(|| {
        Error::failed(format!("the gateway's grpc.pem has no name: its subject is `{}`", certificate.subject))
    })
}

/// The common name in a subject's text; the names that our authority gives to gateways hold no comma.
fn common_name(subject: &str) -> Option<&str> {
    subject.split(',').find_map(|part| part.trim().strip_prefix("CN="))
}

/// This machine's name, if it is one that a certificate may hold.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if check_dns_name(name).is_ok() && name != "localhost" { name.to_owned() } else { "gateway".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_reached_by_loopback() {
        let reach = |a: &str| reachable(a.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:7443"), "127.0.0.1:7443");
        assert_eq!(reach("[::]:7443"), "127.0.0.1:7443");
        assert_eq!(reach("192.0.2.1:7443"), "192.0.2.1:7443");
    }

    #[test]
    fn a_gateway_is_named_as_in_its_subject() {
        assert_eq!(common_name("CN=gw1.example.com, O=Example"), Some("gw1.example.com"));
        assert_eq!(common_name("O=Example,CN=gw1"), Some("gw1"));
        assert_eq!(common_name("O=Example"), None);
    }

    #[test]
    fn the_host_name_is_fit_for_a_certificate() {
        assert!(check_dns_name(&host_name()).is_ok());
    }
}
