//! Certificates for the gateways themselves.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sallyport_proto::v1;
use tonic::{Request, Status};

use super::super::server::Peer;
use super::GatewayService;
use crate::app::Core;
use crate::enroll::{Asked, Enrolled, for_gateway};

/// Longest request for a certificate, bytes: one for an RSA key of 4,096 bits takes a fourth of it.
pub(in crate::api) const MAX_CSR: usize = 8 * 1024;

/// Where a call came from: 0.0.0.0 for one that came by no connection.
pub(in crate::api) fn source<T>(request: &Request<T>) -> IpAddr {
    request.extensions().get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.remote.ip().to_canonical())
}

/// The certificate and its issuers, or why there is none.
pub(in crate::api) async fn certify(
    core: &Arc<Core>,
    asked: Asked,
    csr: &[u8],
    source: IpAddr,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), Status> {
    if csr.len() > MAX_CSR {
        return Err(Status::invalid_argument(format!("csr: at most {MAX_CSR} bytes")));
    }
    match for_gateway(core, asked, csr, source).await? {
        Enrolled::Issued { certificate, chain } => Ok((certificate, chain)),
        Enrolled::Refused(refusal) => Err(Status::permission_denied(format!("{}; {}", refusal.cause, refusal.remedy))),
        Enrolled::Invalid(text) => Err(Status::invalid_argument(text)),
        Enrolled::Waiting => Err(Status::permission_denied("gateways are not approved one by one; use a token")),
    }
}

impl GatewayService {
    pub(super) async fn do_renew(&self, request: Request<v1::RenewRequest>) -> Result<v1::RenewResponse, Status> {
        let caller = self.caller(&request)?;
        // Another controller may have passed it on, and says whence it came.
        let source = caller.source.parse().unwrap_or_else(|_| source(&request));
        let request = request.into_inner();
        let asked = Asked::Calling { link: caller.serial, purpose: request.purpose(), present: request.present };
        let (certificate, chain) = certify(&self.core, asked, &request.csr, source).await?;
        tracing::info!(gateway = %caller.name, "a gateway has a new certificate");
        Ok(v1::RenewResponse { certificate, chain })
    }
}
